package v1alpha1

import "time"

// Connections to the endpoints of a service. Values that are left out are taken from the policy behind this one, in the end
// from the mesh: 2s to connect, kept open while they are used. The system always asks whether a silent machine is still there.
type Connections struct {
	// ConnectTimeout is for TCP and TLS together, to one endpoint: 1ms to 1m. Default 2s.
	ConnectTimeout Duration `json:"connectTimeout,omitempty"`
	// IdleTimeout closes a connection that has had no request for as long: 100ms to 24h. Default 10m inside the mesh.
	IdleTimeout Duration `json:"idleTimeout,omitempty"`
	// MaxDuration ends a connection in order when it is as old: 1s to 720h. "": never.
	MaxDuration Duration `json:"maxDuration,omitempty"`
	// MaxRequests a connection takes, then another one is made. 0: no bound.
	MaxRequests *int32 `json:"maxRequests,omitempty"`
	// CloseOnFailure ends relayed TCP connections when their endpoint fails a health check or is ejected. Default false.
	CloseOnFailure *bool `json:"closeOnFailure,omitempty"`
	// HTTP2 are options of the protocol.
	HTTP2 *HTTP2Options `json:"http2,omitempty"`
}

// HTTP2Options of connections; what is left out is the proxy's own.
type HTTP2Options struct {
	// MaxStreams are requests under way on one connection: 1 to 2147483647.
	MaxStreams int32 `json:"maxStreams,omitempty"`
	// Window of a request, in bytes: 65535 to 1048576. So much of a response is held for a client that does not read.
	Window int32 `json:"window,omitempty"`
	// ConnectionWindow of all requests of a connection, in bytes: 65535 to 16777216.
	ConnectionWindow int32 `json:"connectionWindow,omitempty"`
	// KeepAlive is how often the other side is asked by PING, within KeepAliveTimeout (default 10s) it must answer.
	KeepAlive        Duration `json:"keepAlive,omitempty"`
	KeepAliveTimeout Duration `json:"keepAliveTimeout,omitempty"`
}

// Breakers bound what may be under way at a time, in each calling proxy. More is refused at once instead of waiting, and goes
// to fallback where there is one. What is left out has no bound but the proxy's own; 0, which could be read as that or as
// "nothing at all", is refused.
type Breakers struct {
	// Connections to the endpoints of a service (not of a route). More requests wait for one; connections that are relayed are refused.
	Connections *int32 `json:"connections,omitempty"`
	// Pending requests: they wait for a connection.
	Pending *int32 `json:"pending,omitempty"`
	// Requests that have one.
	Requests *int32 `json:"requests,omitempty"`
	// Retries under way to a service (not of a route); there are no more.
	Retries *int32 `json:"retries,omitempty"`
}

func (c *check) connections(at string, p *Connections) {
	if p == nil {
		return
	}
	if *p == (Connections{}) {
		c.fail(at, "says nothing: write for example connectTimeout, or remove it")
	}
	c.span(at+".connectTimeout", p.ConnectTimeout, time.Millisecond, time.Minute)
	idle := c.span(at+".idleTimeout", p.IdleTimeout, 100*time.Millisecond, 24*time.Hour)
	most := c.span(at+".maxDuration", p.MaxDuration, time.Second, 720*time.Hour)
	if most > 0 && idle > most {
		c.fail(at+".idleTimeout", "%s is longer than maxDuration %s, which ends the connection before", p.IdleTimeout, p.MaxDuration)
	}
	c.between(at+".maxRequests", int64(value(p.MaxRequests, 0)), 0, 1<<31-1)
	h := p.HTTP2
	if h == nil {
		return
	}
	at += ".http2"
	for _, v := range []struct {
		field       string
		value       int32
		least, most int64
	}{
		{"maxStreams", h.MaxStreams, 1, 1<<31 - 1}, {"window", h.Window, 65535, 1 << 20}, {"connectionWindow", h.ConnectionWindow, 65535, 16 << 20},
	} {
		if v.value != 0 {
			c.between(at+"."+v.field, int64(v.value), v.least, v.most)
		}
	}
	every := c.span(at+".keepAlive", h.KeepAlive, 100*time.Millisecond, time.Hour)
	wait := c.span(at+".keepAliveTimeout", h.KeepAliveTimeout, 10*time.Millisecond, time.Hour)
	if wait > 0 && every == 0 {
		c.fail(at+".keepAliveTimeout", "means nothing without keepAlive: write both")
	}
}

func (c *check) breakers(at string, b *Breakers) {
	if b == nil {
		return
	}
	if *b == (Breakers{}) {
		c.fail(at, "bounds nothing: write at least one of connections, pending, requests and retries")
	}
	for _, v := range []struct {
		field string
		value *int32
	}{{"connections", b.Connections}, {"pending", b.Pending}, {"requests", b.Requests}, {"retries", b.Retries}} {
		if v.value != nil {
			if *v.value == 0 {
				c.fail(at+"."+v.field, "is 0, which lets nothing through: leave it out for no bound, or write 1 or more")
				continue
			}
			c.between(at+"."+v.field, int64(*v.value), 1, 1<<31-1)
		}
	}
}
