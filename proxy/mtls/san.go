package mtls

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// san is a model.SANMatch that can be asked.
type san struct {
	kind  model.SANKind
	match model.StringMatch
	re    *regexp.Regexp
	ip    netip.Addr // of an exact IP match
}

func newSAN(m *model.SANMatch) (s san, err error) {
	s = san{kind: m.Kind, match: m.Match}
	if m.Match.IgnoreCase {
		s.match.Value = strings.ToLower(m.Match.Value)
	}
	if m.Match.Kind == model.StringRegex {
		expr := "^(?:" + m.Match.Value + ")$"
		if m.Match.IgnoreCase {
			expr = "(?i)" + expr
		}
		if s.re, err = regexp.Compile(expr); err != nil {
			return s, fmt.Errorf("TLS: accepted name: %w", err)
		}
	}
	if m.Match.Kind == model.StringExact {
		s.ip, _ = netip.ParseAddr(m.Match.Value)
	}
	return s, nil
}

// in reports whether one of the certificate's names is accepted.
func (s *san) in(c *x509.Certificate) bool {
	if s.kind == model.SANDNS || s.kind == model.SANAny {
		for _, n := range c.DNSNames {
			if s.accepts(n) || s.match.Kind == model.StringExact && dnsMatch(strings.ToLower(n), strings.ToLower(s.match.Value)) {
				return true
			}
		}
	}
	if s.kind == model.SANURI || s.kind == model.SANAny {
		for _, u := range c.URIs {
			if s.accepts(u.String()) {
				return true
			}
		}
	}
	if s.kind == model.SANEmail || s.kind == model.SANAny {
		for _, n := range c.EmailAddresses {
			if s.accepts(n) {
				return true
			}
		}
	}
	if s.kind == model.SANIP || s.kind == model.SANAny {
		for _, ip := range c.IPAddresses {
			a, _ := netip.AddrFromSlice(ip)
			if a = a.Unmap(); s.ip.IsValid() && s.ip.Unmap() == a || s.accepts(a.String()) {
				return true
			}
		}
	}
	return false
}

func (s *san) accepts(v string) bool {
	if s.re != nil {
		return s.re.MatchString(v)
	}
	if s.match.IgnoreCase {
		v = strings.ToLower(v)
	}
	switch s.match.Kind {
	case model.StringExact:
		return v == s.match.Value
	case model.StringPrefix:
		return strings.HasPrefix(v, s.match.Value)
	case model.StringSuffix:
		return strings.HasSuffix(v, s.match.Value)
	case model.StringContains:
		return strings.Contains(v, s.match.Value)
	}
	return false
}
