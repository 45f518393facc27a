package router

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// domains finds the virtual host of an authority: an exact domain first, then the longest "*suffix", then the longest
// "prefix*", then "*" (Envoy's order).
type domains struct {
	exact    map[string]*Host
	suffixes map[string]*Host // without the "*"
	prefixes map[string]*Host
	all      *Host

	suffixLengths, prefixLengths []int // longest first
}

// maxAuthority bounds an authority that can be more than "*", in bytes: a name has 255 at most, and a port six.
const maxAuthority = 264

func (d *domains) compile(hosts []Host) error {
	d.exact, d.suffixes, d.prefixes = map[string]*Host{}, map[string]*Host{}, map[string]*Host{}
	for i := range hosts {
		for _, domain := range hosts[i].Domains {
			if err := d.add(strings.ToLower(domain), &hosts[i]); err != nil {
				return err
			}
		}
	}
	d.suffixLengths, d.prefixLengths = lengths(d.suffixes), lengths(d.prefixes)
	return nil
}

func (d *domains) add(domain string, h *Host) error {
	into, at := d.exact, domain
	switch stars := strings.Count(domain, "*"); {
	case domain == "":
		return fmt.Errorf("virtual host %s: an empty domain; \"*\" is every one", h.Name)
	case domain == "*":
		if d.all != nil {
			return fmt.Errorf("virtual hosts %s and %s share the domain \"*\"", d.all.Name, h.Name)
		}
		d.all = h
		return nil
	case stars == 1 && domain[0] == '*':
		into, at = d.suffixes, domain[1:]
	case stars == 1 && domain[len(domain)-1] == '*':
		into, at = d.prefixes, domain[:len(domain)-1]
	case stars > 0:
		return fmt.Errorf("virtual host %s: domain %q: a \"*\" stands at the start or at the end, once", h.Name, domain)
	}
	if other := into[at]; other != nil {
		return fmt.Errorf("virtual hosts %s and %s share the domain %q", other.Name, h.Name, domain)
	}
	into[at] = h
	return nil
}

func lengths(m map[string]*Host) (out []int) {
	for k := range m {
		if !slices.Contains(out, len(k)) {
			out = append(out, len(k))
		}
	}
	slices.SortFunc(out, func(a, b int) int { return cmp.Compare(b, a) })
	return out
}

// find answers the host of an authority, nil if there is none. A wildcard stands for at least one character.
func (d *domains) find(authority []byte, ignorePort bool) *Host {
	if ignorePort {
		authority = withoutPort(authority)
	}
	if len(authority) > maxAuthority {
		return d.all
	}
	var room [maxAuthority]byte
	name := room[:0]
	for _, c := range authority {
		name = append(name, lowerByte(c))
	}
	if h := d.exact[string(name)]; h != nil {
		return h
	}
	for _, n := range d.suffixLengths {
		if n < len(name) {
			if h := d.suffixes[string(name[len(name)-n:])]; h != nil {
				return h
			}
		}
	}
	for _, n := range d.prefixLengths {
		if n < len(name) {
			if h := d.prefixes[string(name[:n])]; h != nil {
				return h
			}
		}
	}
	return d.all
}

// withoutPort takes ":8080" off an authority; the colons of an IPv6 address stay.
func withoutPort(a []byte) []byte {
	i := bytes.LastIndexByte(a, ':')
	if i < 0 || bytes.IndexByte(a[i:], ']') >= 0 {
		return a
	}
	for _, c := range a[i+1:] {
		if c < '0' || c > '9' {
			return a
		}
	}
	return a[:i]
}
