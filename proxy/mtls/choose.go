package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"strings"

	"github.com/tulle-mesh/tulle/proxy/secret"
)

// show chooses what a client is shown, and notes it.
func (c *ServerContext) show(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := c.certificate(hello)
	if w, ok := hello.Conn.(*wire); ok && err == nil {
		w.shown = cert.Leaf
	}
	return cert, err
}

// Shown answers our certificate on a connection whose handshake with this context is over; nil: there is none. Of a session
// that was resumed, which shows none, it is the one that would be shown for that name now.
func (c *ServerContext) Shown(on *Conn) *x509.Certificate {
	if on.wire.shown != nil {
		return on.wire.shown
	}
	if cert := c.named(on.ServerName(), nil); cert != nil {
		return cert.Leaf
	}
	if cert, err := first(c.certs); err == nil {
		return cert.Leaf
	}
	return nil
}

// certificate chooses what a client is shown: a certificate for the very name that it asked for, else one with a
// wildcard for it, else any, each time the first that its algorithms fit; else the first there is.
func (c *ServerContext) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(c.certs) == 1 {
		return certificateIn(c.certs[0])
	}
	anyName := *hello
	anyName.ServerName = ""
	if best := c.named(hello.ServerName, &anyName); best != nil {
		return best, nil
	}
	return first(c.certs)
}

// named answers the best certificate for a name among those that hello's algorithms fit; nil: all do.
func (c *ServerContext) named(name string, hello *tls.ClientHelloInfo) (best *tls.Certificate) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	rank := 0
	for _, s := range c.certs {
		cert, err := certificateIn(s)
		if err != nil {
			continue
		}
		r := 1 + fits(cert.Leaf, name)
		if r > rank && (hello == nil || hello.SupportsCertificate(cert) == nil) {
			best, rank = cert, r
		}
	}
	return best
}

// first answers the first certificate that there is.
func first(slots []*secret.Slot) (cert *tls.Certificate, err error) {
	for _, s := range slots {
		if cert, err = certificateIn(s); err == nil {
			return cert, nil
		}
	}
	return nil, err
}

// fits answers 2 if leaf names name, 1 if it has a wildcard for it, 0 otherwise.
func fits(leaf *x509.Certificate, name string) int {
	if leaf == nil || name == "" {
		return 0
	}
	names := leaf.DNSNames
	if len(names) == 0 {
		names = []string{leaf.Subject.CommonName} // as other servers do; nobody's identity depends on it
	}
	best := 0
	for _, n := range names {
		n = strings.ToLower(n)
		switch {
		case n == name:
			return 2
		case dnsMatch(n, name):
			best = 1
		}
	}
	return best
}

// dnsMatch reports whether the certificate's name pattern, in lower case, is for the host: a wildcard stands for one
// whole leftmost label (RFC 6125 section 6.4.3).
func dnsMatch(pattern, host string) bool {
	if pattern == host {
		return pattern != ""
	}
	rest, wild := strings.CutPrefix(pattern, "*.")
	_, parent, ok := strings.Cut(host, ".")
	return wild && ok && parent != "" && rest == parent && !strings.HasPrefix(host, ".")
}
