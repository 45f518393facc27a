// Package chain decides which filter chain of a listener serves a connection, by Envoy's rules: one property of the
// connection after the other is looked at, the most specific value that any chain still in question names wins, and the
// chains that do not name it are out for good, even if in the end none is left. A Table is made once per listener
// (Compile) and is immutable: safe for concurrent use. Find takes time that does not depend on the number of chains.
// Pure. Start reading at Find; the order of the properties is that of the stages.
package chain

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// Transports of a connection.
const (
	Raw = "raw_buffer"
	TLS = "tls"
)

// Conn is what is known of a connection. What was not looked for is zero.
type Conn struct {
	Destination netip.AddrPort // where the client wanted to go
	ServerName  string         // in lower case
	Transport   string         // Raw or TLS
	ALPN        []string       // in the client's order
	Direct      netip.Addr     // the other end of the TCP connection
	Source      netip.AddrPort // who it is from: Direct, or what a PROXY header says
}

// stage is one property, in the order in which they are looked at.
type stage uint8

const (
	destinationPort stage = iota
	destination
	serverName
	transport
	alpn
	directSource
	sourceType
	source
	sourcePort
	stages
)

// key is a value of a property that chains name; the zero key stands for those that name none.
type key struct {
	text   string
	number uint16
	prefix netip.Prefix
}

// node is what is left after some properties have been decided.
type node struct {
	next  map[key]*node
	bits  []int // lengths of the prefixes among next, longest first
	index int   // after the last property: the chain's
}

// Table is the chains of one listener.
type Table struct{ root *node }

// maxNodes bounds what the combinations of all values of all chains may come to.
const maxNodes = 1 << 20

// Compile makes a Table of the matches of a listener's chains. Two of them that hold for the same connections without one
// being more specific, and names that are no names, are errors.
func Compile(matches []model.ChainMatch) (*Table, error) {
	b := builder{root: &node{}}
	for i := range matches {
		keys, err := keysOf(&matches[i])
		if err != nil {
			return nil, fmt.Errorf("filter chain %d: %w", i, err)
		}
		if err := b.add(b.root, 0, &keys, i); err != nil {
			return nil, fmt.Errorf("filter chain %d: %w", i, err)
		}
	}
	b.root.order()
	return &Table{root: b.root}, nil
}

// Find answers the index of the chain that serves c, -1 if there is none.
func (t *Table) Find(c *Conn) int {
	n := t.root
	for s := stage(0); s < stages; s++ {
		if n = n.decide(s, c); n == nil {
			return -1
		}
	}
	return n.index
}

// decide answers what is left after one property: of what the chains name the most specific that c has, else what is
// there for any, else nothing.
func (n *node) decide(s stage, c *Conn) *node {
	var to *node
	switch s {
	case destinationPort:
		to = n.next[key{number: c.Destination.Port()}]
	case destination:
		to = n.longest(c.Destination.Addr())
	case serverName:
		to = n.named(c.ServerName)
	case transport:
		to = n.next[key{text: c.Transport}]
	case alpn:
		for _, p := range c.ALPN {
			if to = n.next[key{text: p}]; to != nil {
				break
			}
		}
	case directSource:
		to = n.longest(c.Direct)
	case sourceType:
		kind := model.SourceExternal
		if c.local() {
			kind = model.SourceLocal
		}
		to = n.next[key{number: uint16(kind)}]
	case source:
		to = n.longest(c.Source.Addr())
	case sourcePort:
		to = n.next[key{number: c.Source.Port()}]
	}
	if to == nil {
		to = n.next[key{}]
	}
	return to
}

// local reports whether the connection is from this machine, as far as its addresses tell.
func (c *Conn) local() bool {
	a := c.Source.Addr().Unmap()
	return a.IsLoopback() || a.IsValid() && a == c.Destination.Addr().Unmap()
}

// longest answers what is below the longest prefix that a is in.
func (n *node) longest(a netip.Addr) *node {
	if !a.IsValid() {
		return nil
	}
	a = a.Unmap().WithZone("")
	for _, bits := range n.bits {
		p, err := a.Prefix(bits)
		if err != nil {
			continue // longer than an address of this family
		}
		if to := n.next[key{prefix: p}]; to != nil {
			return to
		}
	}
	return nil
}

// named answers what is below the name, else below the longest wildcard that it is in.
func (n *node) named(name string) *node {
	if name == "" {
		return nil
	}
	if to := n.next[key{text: name}]; to != nil {
		return to
	}
	for {
		i := strings.IndexByte(name[1:], '.')
		if i < 0 {
			return nil
		}
		name = name[1+i:] // ".example.com"
		if to := n.next[key{text: name}]; to != nil {
			return to
		}
		if len(name) < 2 {
			return nil
		}
	}
}

// order prepares longest.
func (n *node) order() {
	for k, to := range n.next {
		if k.prefix.IsValid() && !slices.Contains(n.bits, k.prefix.Bits()) {
			n.bits = append(n.bits, k.prefix.Bits())
		}
		to.order()
	}
	slices.SortFunc(n.bits, func(a, b int) int { return cmp.Compare(b, a) })
}

// builder makes the tree.
type builder struct {
	root  *node
	nodes int
}

var (
	errTwice = errors.New("matches the same connections as another one; make one of them more specific")
	errMany  = errors.New("too many combinations of values in filter_chain_match; use fewer")
)

func (b *builder) add(n *node, s stage, keys *[stages][]key, index int) error {
	for _, k := range keys[s] {
		to := n.next[k]
		if to == nil {
			if b.nodes++; b.nodes > maxNodes {
				return errMany
			}
			to = &node{index: index}
			if n.next == nil {
				n.next = map[key]*node{}
			}
			n.next[k] = to
		} else if s == stages-1 {
			if to.index == index {
				continue // the chain says the same twice
			}
			return errTwice
		}
		if s < stages-1 {
			if err := b.add(to, s+1, keys, index); err != nil {
				return err
			}
		}
	}
	return nil
}

// keysOf answers the values that a chain names, per property.
func keysOf(m *model.ChainMatch) (keys [stages][]key, err error) {
	keys[destinationPort] = []key{{number: m.DestinationPort}}
	if keys[destination], err = prefixes(m.Destinations); err != nil {
		return keys, err
	}
	for _, n := range m.ServerNames {
		k, err := nameKey(n)
		if err != nil {
			return keys, err
		}
		keys[serverName] = append(keys[serverName], k)
	}
	keys[transport] = []key{{text: m.Transport}}
	for _, p := range m.ALPN {
		keys[alpn] = append(keys[alpn], key{text: p})
	}
	if keys[directSource], err = prefixes(m.DirectSources); err != nil {
		return keys, err
	}
	keys[sourceType] = []key{{number: uint16(m.SourceType)}}
	if keys[source], err = prefixes(m.Sources); err != nil {
		return keys, err
	}
	for _, p := range m.SourcePorts {
		keys[sourcePort] = append(keys[sourcePort], key{number: p})
	}
	for s := range keys {
		if len(keys[s]) == 0 {
			keys[s] = []key{{}}
		}
	}
	return keys, nil
}

func prefixes(in []netip.Prefix) (out []key, err error) {
	for _, p := range in {
		if !p.IsValid() {
			return nil, fmt.Errorf("%v is no address prefix", p)
		}
		out = append(out, key{prefix: p.Masked()})
	}
	return out, nil
}

// nameKey answers the key of a server name; a wildcard's begins with a dot.
func nameKey(n string) (key, error) {
	rest, wild := strings.CutPrefix(n, "*")
	if n == "" || strings.Contains(rest, "*") || wild && (len(rest) < 2 || rest[0] != '.') {
		return key{}, fmt.Errorf("server name %q is neither a name nor a wildcard such as \"*.example.com\"", n)
	}
	return key{text: strings.ToLower(rest)}, nil
}
