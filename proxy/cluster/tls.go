package cluster

import "github.com/tulle-mesh/tulle/proxy/loop"

// TLS makes the connections to the endpoints of a cluster whose model asks for it. Safe for concurrent use; a pointer, so
// that what it is part of stays comparable.
type TLS interface {
	// Dial starts a connection on l; h.Opened is called after the handshake. header is sent before it, in the clear. host is
	// the request's, "" unless PerHost; protocols are offered by ALPN where the model names none. The connection says by
	// Protocol() string which one was agreed on.
	Dial(l loop.Loop, d loop.Dial, header []byte, host string, protocols []string, h loop.Handler) loop.Conn
	// PerHost reports whether host matters.
	PerHost() bool
}

// SetTLS says who makes the connections from now on; nil: they are plain. Those that stand stay until they are retired.
func (c *Cluster) SetTLS(t TLS) {
	if t == nil {
		c.tls.Store(nil)
		return
	}
	c.tls.Store(&t)
}

// TLS answers what SetTLS was given last.
func (c *Cluster) TLS() TLS {
	if t := c.tls.Load(); t != nil {
		return *t
	}
	return nil
}
