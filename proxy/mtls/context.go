package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/secret"
)

// Secrets answers where the material of a secret is; *secret.Store is one. It is called while a context is made; the
// Slot is asked at every handshake.
type Secrets interface {
	Slot(ref model.SecretRef) (*secret.Slot, error)
}

// ServerContext is how a chain of a foreign listener (no mesh) proves who it is, and whom it lets in. Safe for
// concurrent use; one is shared by all loops, so that a client can resume its session on any of them. Ticket keys are
// made by crypto/tls, live for 7 days and are new every day; they end with the context.
type ServerContext struct {
	cfg   *tls.Config
	certs []*secret.Slot
	check *check // nil: no client is verified
	now   func() time.Time
}

// NewServerContext makes the context of m, or says what of m cannot be run. Secrets that SDS has not told yet are no
// error; see Ready.
func NewServerContext(m *model.ServerTLS, s Secrets) (*ServerContext, error) {
	c := &ServerContext{now: time.Now}
	cfg, err := parameters(&m.Parameters)
	if err != nil {
		return nil, err
	}
	if len(m.Certificates) == 0 {
		return nil, errors.New("TLS: a server needs a certificate; name one")
	}
	for _, ref := range m.Certificates {
		slot, err := slotOf(s, ref, func(m *secret.Material) bool { return m.Certificate != nil }, "certificate")
		if err != nil {
			return nil, err
		}
		c.certs = append(c.certs, slot)
	}
	cfg.Time = func() time.Time { return c.now() }
	cfg.NextProtos = slices.Clone(m.ALPN)
	cfg.SessionTicketsDisabled = m.NoTickets
	cfg.GetCertificate = c.show
	switch {
	case m.RequireClient:
		cfg.ClientAuth = tls.RequireAnyClientCert // verified below, on resumed handshakes too
	case m.Validation != nil:
		cfg.ClientAuth = tls.RequestClientCert
	}
	if m.Validation != nil {
		if c.check, err = newCheck(m.Validation, s, x509.ExtKeyUsageClientAuth); err != nil {
			return nil, err
		}
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil // crypto/tls has refused it if a certificate is required
			}
			return c.check.accept(cs.PeerCertificates, "", c.now())
		}
	}
	c.cfg = cfg
	return c, nil
}

// Config is what Handshakes.Server takes. It is always the same one and must not be changed.
func (c *ServerContext) Config() *tls.Config { return c.cfg }

// Ready reports whether every secret has come; until then handshakes fail.
func (c *ServerContext) Ready() bool { return ready(c.certs) && (c.check == nil || c.check.ready()) }

// Proven reports whether the peer of a connection with this context holds to its validation. It can be false where
// certificates are not verified, or are accepted all the same (ACCEPT_UNTRUSTED).
func (c *ServerContext) Proven(cs *tls.ConnectionState) bool {
	return c.check != nil && c.check.proven(cs.PeerCertificates, "", c.now())
}

// ClientContext is how a cluster's connections prove who they are, and whom they accept. Safe for concurrent use.
type ClientContext struct {
	m        *model.ClientTLS
	base     *tls.Config
	cert     *secret.Slot // nil: none
	check    *check       // nil: the server is not verified at all
	now      func() time.Time
	sessions *sessions // nil: none

	mu      sync.Mutex
	configs map[clientKey]*tls.Config
}

type clientKey struct{ host, alpn string }

// maxConfigs bounds how many hosts a ClientContext remembers the configuration of.
const maxConfigs = 256

// NewClientContext makes the context of m, or says what of m cannot be run. Secrets that SDS has not told yet are no
// error; see Ready.
func NewClientContext(m *model.ClientTLS, s Secrets) (*ClientContext, error) {
	c := &ClientContext{m: m, now: time.Now, configs: map[clientKey]*tls.Config{}}
	var err error
	if c.base, err = parameters(&m.Parameters); err != nil {
		return nil, err
	}
	if len(m.Certificates) > 1 {
		return nil, errors.New("TLS: a client has one certificate at most")
	}
	for _, ref := range m.Certificates {
		if c.cert, err = slotOf(s, ref, func(m *secret.Material) bool { return m.Certificate != nil }, "certificate"); err != nil {
			return nil, err
		}
	}
	if m.Validation != nil {
		if c.check, err = newCheck(m.Validation, s, x509.ExtKeyUsageServerAuth); err != nil {
			return nil, err
		}
	} else if m.AutoSANs {
		return nil, errors.New("TLS: the server's names are to be compared, and nothing verifies its certificate; give trusted roots")
	}
	c.base.Time = func() time.Time { return c.now() }
	c.base.InsecureSkipVerify = true // verified by check: on resumed handshakes too, and not by the SNI
	if c.cert != nil {
		c.base.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificateIn(c.cert) }
	}
	if m.MaxSessions > 0 {
		c.sessions = &sessions{size: int(min(m.MaxSessions, 1<<16)), cert: c.cert}
		c.base.ClientSessionCache = c.sessions
	}
	return c, nil
}

// Config is what Handshakes.Client and Dial take for a connection. host is the request's (without a port), for AutoSNI
// and AutoSANs; "" where there is none. fallback are the protocols to offer where the model names none. The answer must
// not be changed.
func (c *ClientContext) Config(host string, fallback ...string) *tls.Config {
	if !c.m.AutoSNI && !c.m.AutoSANs {
		host = ""
	}
	alpn := c.m.ALPN
	if len(alpn) == 0 {
		alpn = fallback
	}
	key := clientKey{host, strings.Join(alpn, ",")}
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := c.configs[key]
	if cfg == nil {
		if len(c.configs) >= maxConfigs {
			clear(c.configs) // sessions are kept elsewhere: nothing is lost but the time to make them again
		}
		cfg = c.config(host, alpn)
		c.configs[key] = cfg
	}
	return cfg
}

func (c *ClientContext) config(host string, alpn []string) *tls.Config {
	cfg := c.base.Clone()
	cfg.NextProtos = slices.Clone(alpn)
	if cfg.ServerName = c.m.SNI; c.m.AutoSNI && host != "" {
		cfg.ServerName = host
	}
	if c.check != nil {
		name := ""
		if c.m.AutoSANs {
			name = host
		}
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			if c.m.AutoSANs && name == "" {
				return &identityError{errors.New("the server's certificate is to name the request's host, and there is none")}
			}
			return c.check.accept(cs.PeerCertificates, name, c.now())
		}
	}
	return cfg
}

// PerHost reports whether connections depend on the request's host: connections made for one must not be used for
// another.
func (c *ClientContext) PerHost() bool { return c.m.AutoSNI || c.m.AutoSANs }

// Ready reports whether every secret has come; until then handshakes fail.
func (c *ClientContext) Ready() bool {
	return (c.cert == nil || c.cert.Current() != nil) && (c.check == nil || c.check.ready())
}

// sessions is a client's cache of resumable sessions. It is emptied when our own certificate changes: a resumed session
// would still prove the old one.
type sessions struct {
	size int
	cert *secret.Slot // nil: none

	mu  sync.Mutex
	of  *secret.Material
	lru tls.ClientSessionCache
}

func (s *sessions) cache() tls.ClientSessionCache {
	s.mu.Lock()
	defer s.mu.Unlock()
	var now *secret.Material
	if s.cert != nil {
		now = s.cert.Current()
	}
	if s.lru == nil || now != s.of {
		s.lru, s.of = tls.NewLRUClientSessionCache(s.size), now
	}
	return s.lru
}

func (s *sessions) Get(key string) (*tls.ClientSessionState, bool) { return s.cache().Get(key) }
func (s *sessions) Put(key string, cs *tls.ClientSessionState)     { s.cache().Put(key, cs) }

// slotOf answers the slot of ref; material that is there already must have what is wanted of it.
func slotOf(s Secrets, ref model.SecretRef, has func(*secret.Material) bool, what string) (*secret.Slot, error) {
	slot, err := s.Slot(ref)
	switch {
	case err != nil:
		return nil, err
	case slot == nil:
		return nil, fmt.Errorf("TLS: a %s is neither given in place nor named", what)
	case slot.Current() != nil && !has(slot.Current()):
		return nil, fmt.Errorf("TLS: secret %q has no %s", slot.Current().Name, what)
	}
	return slot, nil
}

func ready(slots []*secret.Slot) bool {
	return !slices.ContainsFunc(slots, func(s *secret.Slot) bool { return s.Current() == nil })
}

var errNotYet = errors.New("a secret has not come yet; is the control plane reachable?")

func certificateIn(s *secret.Slot) (*tls.Certificate, error) {
	switch m := s.Current(); {
	case m == nil:
		return nil, errNotYet
	case m.Certificate == nil:
		return nil, fmt.Errorf("secret %q has no certificate", m.Name)
	default:
		return m.Certificate, nil
	}
}
