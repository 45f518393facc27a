package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"strings"

	"github.com/tulle-mesh/tulle/proxy/secret"
)

// certificate chooses what a client is shown: a certificate for the very name that it asked for, else one with a
// wildcard for it, else any, each time the first that its algorithms fit; else the first there is.
func (c *ServerContext) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(c.certs) == 1 {
		return certificateIn(c.certs[0])
	}
	anyName := *hello
	anyName.ServerName = ""
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	var best *tls.Certificate
	rank := 0
	for _, s := range c.certs {
		cert, err := certificateIn(s)
		if err != nil {
			continue
		}
		r := 1 + fits(cert.Leaf, name)
		if r > rank && anyName.SupportsCertificate(cert) == nil {
			best, rank = cert, r
		}
	}
	if best == nil {
		return first(c.certs)
	}
	return best, nil
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
