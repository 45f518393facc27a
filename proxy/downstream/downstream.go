// Package downstream is the server side of one connection that carries requests: HTTP/1.1 from programs and
// from outside, HTTP/2 with prior knowledge from programs and, over mTLS, from other proxies. Each request becomes one
// exchange. It promises strict parsing (what is ambiguous is refused and the connection ended), that the
// requests of an HTTP/1.1 connection are answered in order, and bounds on heads, streams, idle time and bytes in flight.
// It never routes and never connects.
//
// A connection belongs to its loop. Start reading at Serve.
package downstream

import (
	"time"

	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/http1"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Context is what a connection is served with.
type Context struct {
	Worker *exchange.Worker
	Origin *exchange.Origin // must not change while the connection lives
	HTTP2  bool             // the first bytes are the HTTP/2 preface; otherwise HTTP/1
	Config *Config          // nil: defaults
	// Ended, if not nil, is called when the connection is gone.
	Ended func()
}

// Config bounds a connection; zero values are defaults.
type Config struct {
	Limits        http1.Limits
	HeaderTimeout time.Duration // from the first byte of a head to its end; default 15 s
	IdleTimeout   time.Duration // without a request; default 10 min
	MaxStreams    uint32        // HTTP/2: requests at once; default 1024
	Window        int           // request body bytes in flight per request; default 64 KiB
}

// Drainer ends a served connection gracefully: no new requests, then close. Handlers made by Serve implement it.
type Drainer interface {
	Drain()
}

// Serve answers the handler that serves requests on c. The caller hands bytes it has peeked at by leaving them
// unconsumed: the loop gives them again after SetHandler.
func Serve(c loop.Conn, ctx Context) loop.Handler {
	var cfg Config
	if ctx.Config != nil {
		cfg = *ctx.Config
	}
	if cfg.HeaderTimeout <= 0 {
		cfg.HeaderTimeout = 15 * time.Second
	}
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = 10 * time.Minute
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 1024
	}
	if cfg.Window <= 0 {
		cfg.Window = 64 << 10
	}
	if ctx.HTTP2 {
		return newConn2(c, ctx, cfg)
	}
	return newConn1(c, ctx, cfg)
}
