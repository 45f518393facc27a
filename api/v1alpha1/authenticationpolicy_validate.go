package v1alpha1

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of an AuthenticationPolicy.
const (
	maxIssuers = 16
	maxKeySet  = 64 << 10 // bytes of jwks
	maxKeys    = 64
)

// JWTAlgorithms are those of signatures with public keys (RFC 7518 section 3.1, RFC 8037 section 3.1). Never "none", and none with a
// shared secret: who checks could sign.
func JWTAlgorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
}

func defaultAuthenticationPolicy(p *AuthenticationPolicy) {
	for i := range p.Spec.JWT {
		j := &p.Spec.JWT[i]
		if len(j.Algorithms) == 0 {
			j.Algorithms = JWTAlgorithms()
		}
		if j.ClockSkew == "" {
			j.ClockSkew = DefaultClockSkew
		}
		if len(j.From) == 0 {
			j.From = []JWTPlace{{Header: "Authorization", Prefix: "Bearer "}}
		}
	}
}

func (c *check) authenticationPolicy(p *AuthenticationPolicy) {
	s := &p.Spec
	c.securityTargets(&s.SecurityTargets, "Service")
	if s.MTLS == nil && len(s.JWT) == 0 {
		c.fail("spec", "asks for nothing: write mtls or jwt")
	}
	if m := s.MTLS; m != nil {
		c.modes(m)
	}
	c.count("spec.jwt", len(s.JWT), maxIssuers)
	seen := map[string]int{}
	for i := range s.JWT {
		at := fmt.Sprintf("spec.jwt[%d]", i)
		if first, ok := seen[s.JWT[i].Issuer]; ok {
			c.fail(at+".issuer", "%q is that of jwt[%d] too: write it once", s.JWT[i].Issuer, first)
		}
		seen[s.JWT[i].Issuer] = i
		c.issuer(at, &s.JWT[i])
	}
}

func (c *check) modes(m *AuthenticationMTLS) {
	if m.Mode == "" && len(m.Ports) == 0 {
		c.fail("spec.mtls", "says nothing: write mode: Strict, Permissive or Disabled")
	}
	if m.Mode != "" {
		c.mode("spec.mtls.mode", m.Mode)
	}
	c.count("spec.mtls.ports", len(m.Ports), maxEntries)
	seen := map[string]int{}
	for i, p := range m.Ports {
		at := fmt.Sprintf("spec.mtls.ports[%d]", i)
		if n, err := strconv.ParseUint(p.Port, 10, 16); !label(p.Port) || err == nil && n == 0 {
			c.fail(at+".port", "%q is not the name or the number of a port", p.Port)
		}
		c.mode(at+".mode", p.Mode)
		if first, ok := seen[p.Port]; ok {
			c.fail(at+".port", "%q is that of ports[%d] too: write it once", p.Port, first)
		}
		seen[p.Port] = i
	}
}

func (c *check) mode(at, mode string) {
	if mode != ModeStrict && mode != ModePermissive && mode != ModeDisabled {
		c.fail(at, "%q is not a mode: write Strict, Permissive or Disabled", mode)
	}
}

func (c *check) issuer(at string, j *JWTIssuer) {
	c.words(at+".issuer", []string{j.Issuer}, "an issuer, such as https://issuer.example")
	c.count(at+".audiences", len(j.Audiences), maxEntries)
	for i, a := range j.Audiences {
		c.words(fmt.Sprintf("%s.audiences[%d]", at, i), []string{a}, "an audience")
	}
	switch {
	case j.JWKS != "" && j.JWKSURL != "":
		c.fail(at+".jwksURL", "is one place for keys too many beside jwks: remove one")
	case j.JWKSFile != "" && j.JWKS+j.JWKSURL != "":
		c.fail(at+".jwksFile", "is one place for keys too many beside jwks or jwksURL: remove one")
	case j.JWKS != "":
		c.keySet(at+".jwks", j.JWKS)
	case j.JWKSURL != "":
		c.address(at+".jwksURL", j.JWKSURL)
	case j.JWKSFile != "":
		c.file(at+".jwksFile", j.JWKSFile, "/etc/tulle/keys.json")
	default:
		c.address(at+".issuer", j.Issuer)
	}
	c.count(at+".algorithms", len(j.Algorithms), maxEntries)
	for i, a := range j.Algorithms {
		if !slices.Contains(JWTAlgorithms(), a) {
			c.fail(fmt.Sprintf("%s.algorithms[%d]", at, i), "%q is not taken: write some of %s", a, strings.Join(JWTAlgorithms(), ", "))
		}
	}
	c.span(at+".clockSkew", j.ClockSkew, 0, 10*time.Minute)
	c.count(at+".from", len(j.From), maxIssuers)
	for i, p := range j.From {
		c.place(fmt.Sprintf("%s.from[%d]", at, i), p)
	}
	c.claimHeaders(at, j.ClaimHeaders)
	if j.Required && len(j.RequiredPaths) > 0 {
		c.fail(at+".requiredPaths", "says less than required does, which is about every path: remove one")
	}
	c.policyPaths(at+".requiredPaths", j.RequiredPaths)
}

// words checks texts that are compared as they are.
func (c *check) words(at string, list []string, such string) {
	for _, s := range list {
		switch {
		case s == "":
			c.fail(at, "is missing: write %s", such)
		case len(s) > maxText:
			c.fail(at, "has %d bytes: at most %d are taken", len(s), maxText)
		default:
			c.plain(at, s)
		}
	}
}

// address checks where keys are fetched from: nobody on the way may exchange them.
func (c *check) address(at, s string) {
	u, err := url.Parse(s)
	switch {
	case len(s) > maxText:
		c.fail(at, "has %d bytes: at most %d are taken", len(s), maxText)
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		c.fail(at, "%q is not an address to fetch keys from, such as https://issuer.example/keys: write one, or give the keys in jwks", s)
	case u.Scheme == "http" && !ownMachine(u.Hostname()), u.Scheme != "http" && u.Scheme != "https":
		c.fail(at, "%q is not https, so anybody on the way could give other keys: write https, or give the keys in jwks", s)
	}
}

// ownMachine reports whether a host is the machine itself.
func ownMachine(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// keySet checks that a JWKS (RFC 7517 section 5) holds public keys of kinds that sign.
func (c *check) keySet(at, text string) {
	if len(text) > maxKeySet {
		c.fail(at, "has %d bytes: at most %d are taken", len(text), maxKeySet)
		return
	}
	var set struct {
		Keys []struct {
			Kty string `json:"kty"`
			D   string `json:"d"`
		} `json:"keys"`
	}
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		c.fail(at, `is not a JSON Web Key Set, {"keys": [...]}: %s`, oneLine(err.Error()))
		return
	}
	if len(set.Keys) == 0 {
		c.fail(at, `has no keys: write {"keys": [...]}`)
	}
	c.count(at, len(set.Keys), maxKeys)
	for i, k := range set.Keys {
		switch {
		case k.D != "":
			c.fail(at, "keys[%d] is a private key: give the public one, and renew this one, which others have seen", i)
		case k.Kty != "RSA" && k.Kty != "EC" && k.Kty != "OKP":
			c.fail(at, "keys[%d] is of kind %q: public keys are RSA, EC or OKP", i, k.Kty)
		}
	}
}

// oneLine takes out what an error would need more than one line for.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

func (c *check) place(at string, p JWTPlace) {
	given := 0
	for i, s := range []string{p.Header, p.Query, p.Cookie} {
		if s == "" {
			continue
		}
		given++
		here := at + "." + [...]string{"header", "query", "cookie"}[i]
		if len(s) > 256 {
			c.fail(here, "has %d bytes: at most 256 are taken", len(s))
		} else if i != 1 && !token(s) {
			c.fail(here, "%q is not the name of a %s", s, here[len(at)+1:])
		}
		c.plain(here, s)
	}
	if given != 1 {
		c.fail(at, "names %d places: exactly one of header, query and cookie", given)
	}
	switch {
	case p.Prefix != "" && p.Header == "":
		c.fail(at+".prefix", "is for a header: remove it")
	case len(p.Prefix) > 256:
		c.fail(at+".prefix", "has %d bytes: at most 256 are taken", len(p.Prefix))
	}
	c.plain(at+".prefix", p.Prefix)
}

// claimHeaders checks that claims are told in fields that nothing else means something by.
func (c *check) claimHeaders(at string, list []JWTClaimHeader) {
	c.count(at+".claimHeaders", len(list), maxAlternative)
	seen := map[string]int{}
	for i, h := range list {
		here := fmt.Sprintf("%s.claimHeaders[%d]", at, i)
		c.words(here+".claim", []string{h.Claim}, "the name of a claim")
		name := strings.ToLower(h.Header)
		switch first, twice := seen[name]; {
		case !token(h.Header):
			c.fail(here+".header", "%q is not the name of a header", h.Header)
		case strings.HasPrefix(name, "tulle-") || slices.Contains(taken(), name):
			c.fail(here+".header", "%q means something else already: write for example x-claim-%s", h.Header, "sub")
		case twice:
			c.fail(here+".header", "%q is that of claimHeaders[%d] too: give it another name", h.Header, first)
		}
		seen[name] = i
	}
}

// taken are fields that frame a message, belong to one hop, or say who a request is from.
func taken() []string {
	return []string{"host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "http2-settings",
		"expect", "authorization", "proxy-authorization", "cookie", "x-request-id", "traceparent", "tracestate", "x-forwarded-for", "x-forwarded-proto", "content-type"}
}
