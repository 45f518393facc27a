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

// Config bounds a connection; zero values are defaults. Of times, less than 0 is none.
type Config struct {
	Limits        http1.Limits
	HeaderTimeout time.Duration // from the first byte of a head to its end; default 15 s
	IdleTimeout   time.Duration // without a request; default 10 min
	MaxStreams    uint32        // HTTP/2: requests at once; default 1024
	Window        int           // request body bytes in flight per request; default 64 KiB

	// StillTimeout is how long a request may last without a byte moving, where the exchange has no bound of its own
	// (Origin.HTTP); default 1 h. It is looked at once per IdleTimeout. Tunnels are left alone.
	StillTimeout time.Duration
	MaxDuration  time.Duration // of a connection, then it is drained; default none
	MaxRequests  uint32        // per connection, then it is drained; 0: no bound
	DrainTimeout time.Duration // HTTP/2: from GOAWAY to the final one, when the client does not answer; default 5 s

	RefuseHTTP10 bool
	DefaultHost  string        // of HTTP/1.0 requests without Host
	OriginForm   bool          // HTTP/1: absolute-form is refused
	NoTrailers   bool          // HTTP/1: trailers are dropped, both ways
	ConnWindow   uint32        // HTTP/2: request body bytes in flight per connection; 0: see http2.go
	HeaderTable  uint32        // HTTP/2: of HPACK, bytes; 0: 4096
	NoConnect    bool          // HTTP/2: extended CONNECT is not offered
	KeepAlive    time.Duration // HTTP/2: interval of PINGs; default none
	KeepAliveEnd time.Duration // HTTP/2: time for an answer to one; default 20 s
}

// Drainer ends a served connection gracefully: no new requests, then close. Handlers made by Serve implement it.
// Leave does it without haste, for a proxy that another one has taken over from: an HTTP/1 connection that is idle stays
// until its next request, whose response says that it is the last, so that no request meets a connection that closes.
type Drainer interface {
	Drain()
	Leave()
}

// Serve answers the handler that serves requests on c. The caller hands bytes it has peeked at by leaving them
// unconsumed: the loop gives them again after SetHandler.
func Serve(c loop.Conn, ctx Context) loop.Handler {
	var cfg Config
	if ctx.Config != nil {
		cfg = *ctx.Config
	}
	cfg.fill()
	if ctx.HTTP2 {
		return newConn2(c, ctx, cfg)
	}
	return newConn1(c, ctx, cfg)
}

// never is a time that does not come: a timer armed for it expires after a year and is armed again.
const never = 1 << 62

func (cfg *Config) fill() {
	def := func(d *time.Duration, v time.Duration) {
		switch {
		case *d == 0:
			*d = v
		case *d < 0:
			*d = never
		}
	}
	def(&cfg.HeaderTimeout, 15*time.Second)
	def(&cfg.IdleTimeout, 10*time.Minute)
	def(&cfg.StillTimeout, time.Hour)
	def(&cfg.MaxDuration, never)
	def(&cfg.DrainTimeout, 5*time.Second)
	def(&cfg.KeepAlive, never)
	def(&cfg.KeepAliveEnd, 20*time.Second)
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = 1024
	}
	if cfg.Window <= 0 {
		cfg.Window = 64 << 10
	}
}
