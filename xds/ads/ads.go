// Package ads is a client of Envoy's aggregated discovery service: one gRPC stream, incremental or state of the world,
// over which listeners, clusters, route tables, endpoints and secrets come. What comes is decoded (xds/envoy) and given to
// a Sink; it is acknowledged when the Sink has taken it, and refused with the decoder's or the Sink's sentence otherwise.
// The client connects again by itself, with back-off and jitter, and says then what it has; what is known stays in force
// meanwhile. It keeps no resource and does not order them: that is the Sink's. All methods of Client are safe for
// concurrent use and do not wait for the network, Close aside. Start reading at Config and Sink; the protocols are in
// delta.go and world.go.
package ads

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/model"
)

// Sink takes what comes. It is called from one goroutine, one call at a time, and may call Client.Want. What it refuses
// (the error says why, in one line) it keeps as it was; a resource that was part of a refused call is given to it once more,
// alone, so that the control plane learns which one was meant. Applying the same again changes nothing.
type Sink interface {
	Apply(u model.Updates) error
}

// Config of a Client. Addresses and Sink are required.
type Config struct {
	Node      model.Node
	Delta     bool           // the incremental protocol; otherwise state of the world
	LDS, CDS  bool           // ask for all listeners, all clusters
	Headers   []model.Header // initial metadata of the stream
	Authority string         // ":authority"; "": the address's
	// Addresses are "host:port" of the control plane's servers, tried in turn, one for each attempt to connect.
	Addresses []string
	TLS       *tls.Config // nil: plain; it is not changed
	// Dial makes the TCP connection; nil is an ordinary dial.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	Sink Sink
	Log  *slog.Logger
	// KeepAlive is the interval of PINGs, at least 10 s; 0: none but TCP's own. KeepAliveTimeout bounds the wait for the answer;
	// default 20 s.
	KeepAlive, KeepAliveTimeout time.Duration
	// Wait between two attempts to connect: doubles from MinBackoff (default 500 ms) to MaxBackoff (default 30 s), each spread
	// by ±30 %. A stream that has brought a response begins anew.
	MinBackoff, MaxBackoff time.Duration
}

// State says how a client stands with its control plane.
type State struct {
	Connected bool      // a stream is up and has brought a response
	Since     time.Time // of Connected; the zero time before the first stream
	LastError string    // of the newest attempt to connect, "" after success
}

// Client is the stream's owner: one goroutine has the connection and calls the Sink; what others want is noted under mu.
type Client struct {
	cfg  Config
	node *corev3.Node
	stop context.CancelFunc
	done sync.WaitGroup
	wake chan struct{} // holds one

	mu     sync.Mutex
	tongue tongue
	state  State
}

// Start connects in the background and delivers until Close.
func Start(cfg Config) (*Client, error) {
	switch {
	case len(cfg.Addresses) == 0:
		return nil, errors.New("ads: no address of a control plane")
	case cfg.Sink == nil:
		return nil, errors.New("ads: no sink")
	}
	if cfg.MinBackoff <= 0 {
		cfg.MinBackoff = 500 * time.Millisecond
	}
	if cfg.MaxBackoff < cfg.MinBackoff {
		cfg.MaxBackoff = max(30*time.Second, cfg.MinBackoff)
	}
	if cfg.KeepAliveTimeout <= 0 {
		cfg.KeepAliveTimeout = 20 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, wake: make(chan struct{}, 1)}
	var err error
	if c.node, err = wireNode(&cfg.Node); err != nil {
		return nil, err
	}
	if c.tongue = newWorld(c.node); cfg.Delta {
		c.tongue = newIncremental(c.node)
	}
	if cfg.CDS {
		c.tongue.want(model.ResourceCluster, nil)
	}
	if cfg.LDS {
		c.tongue.want(model.ResourceListener, nil)
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.done.Go(func() { c.run(ctx) })
	return c, nil
}

// Want says which route tables, endpoints or secrets are wanted from now on, by name, in place of those before. Other kinds
// are asked for as a whole (Config) and ignored here.
func (c *Client) Want(kind model.ResourceKind, names []string) {
	if kind != model.ResourceRoutes && kind != model.ResourceEndpoints && kind != model.ResourceSecret {
		return
	}
	c.mu.Lock()
	c.tongue.want(kind, names)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// State answers how the client stands.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Close ends the stream and waits for the client's goroutines. The Sink is not called afterwards. It must not be called
// from the Sink.
func (c *Client) Close() {
	c.stop()
	c.done.Wait()
}

// run connects until ctx ends.
func (c *Client) run(ctx context.Context) {
	wait := c.cfg.MinBackoff
	for turn := 0; ; turn++ {
		address := c.cfg.Addresses[turn%len(c.cfg.Addresses)]
		heard, err := c.serve(ctx, address)
		if ctx.Err() != nil {
			return
		}
		if heard {
			wait = c.cfg.MinBackoff
		}
		c.away(address, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(float64(wait) * (0.7 + 0.6*rand.Float64()))):
		}
		wait = min(2*wait, c.cfg.MaxBackoff)
	}
}

// away notes the end of a stream. An outage is said once, and once more for each new reason.
func (c *Client) away(address string, err error) {
	why := line(status.Convert(err).Message())
	c.mu.Lock()
	news := c.state.Connected || c.state.LastError != why
	if c.state.Connected {
		c.state.Connected, c.state.Since = false, time.Now()
	}
	c.state.LastError = why
	c.mu.Unlock()
	if news {
		c.cfg.Log.Warn("control plane not reachable; what is known stays in force", "address", address, "error", why)
	}
}

// here notes that a stream has brought a response.
func (c *Client) here(address string) {
	c.mu.Lock()
	news := !c.state.Connected
	if news {
		c.state = State{Connected: true, Since: time.Now()}
	}
	c.mu.Unlock()
	if news {
		c.cfg.Log.Info("control plane reached", "address", address)
	}
}
