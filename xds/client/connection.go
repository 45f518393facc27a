package client

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/xds/delta"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	connectTimeout   = 5 * time.Second // TCP, TLS and the answer to Hello
	causeTimeout     = time.Second     // until a reader notices that its stream has ended
	bufferSize       = 4 << 10         // of the connection: what comes is small, and rare
	maxMessage       = 8 << 20         // bytes; a response is about 1 MiB at most
)

// connection is one life of the connection, with its two streams.
type connection struct {
	conn    *grpc.ClientConn
	ads     grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]
	session grpc.BidiStreamingClient[tullepb.FromProxy, tullepb.ToProxy]

	responses chan *delta.Response
	messages  chan *tullepb.ToProxy
	failed    chan error // holds one per reader
}

// dial prepares the connection; it is made by the first stream.
func (c *Client) dial() (*grpc.ClientConn, error) {
	dial := c.cfg.Dial
	if dial == nil {
		dial = func(ctx context.Context, a string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", a)
		}
	}
	return grpc.NewClient("passthrough:///"+c.cfg.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(svid.ClientConfig(c.cfg.Identity, c.cfg.Server))),
		grpc.WithContextDialer(dial),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0),
	)
}

// Conn answers the connection to the control plane, for what is asked besides; nil: there is none.
func (c *Client) Conn() grpc.ClientConnInterface {
	if n := c.current.Load(); n != nil {
		return n
	}
	return nil
}

// serve runs one connection to its end; joined is whether the control plane had answered.
func (c *Client) serve(parent context.Context) (joined bool, err error) {
	var readers sync.WaitGroup
	defer readers.Wait()
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	conn, err := c.dial()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	c.current.Store(conn)
	defer c.current.Store(nil)
	n := &connection{conn: conn, responses: make(chan *delta.Response), messages: make(chan *tullepb.ToProxy), failed: make(chan error, 2)}
	if n.ads, err = discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx); err != nil {
		return false, err
	}
	if n.session, err = tullepb.NewSessionClient(conn).Join(ctx); err != nil {
		return false, err
	}
	readers.Go(func() { read(ctx, n.ads.Recv, n.responses, n.failed) }) // both end with the streams, which end with ctx
	readers.Go(func() { read(ctx, n.session.Recv, n.messages, n.failed) })
	if err := c.greet(n); err != nil {
		return false, n.cause(err)
	}
	defer c.connected(false)
	joined, err = c.converse(ctx, n)
	return joined, n.cause(err)
}

// cause answers why a stream has ended where err is only that it has: what is sent on it then fails without the reason.
func (n *connection) cause(err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	select {
	case why := <-n.failed:
		return why
	case <-time.After(causeTimeout):
		return err
	}
}

// read passes on what a stream receives until it fails.
func read[M any](ctx context.Context, recv func() (M, error), to chan<- M, failed chan<- error) {
	for {
		m, err := recv()
		if err != nil {
			failed <- err
			return
		}
		select {
		case to <- m:
		case <-ctx.Done():
			return
		}
	}
}

// converse is the owner's loop.
func (c *Client) converse(ctx context.Context, n *connection) (joined bool, err error) {
	patience := time.NewTimer(connectTimeout)
	defer patience.Stop()
	for {
		if err := c.tell(n, joined); err != nil {
			return joined, err
		}
		select {
		case <-ctx.Done():
			return joined, ctx.Err()
		case err := <-n.failed:
			return joined, err
		case <-patience.C:
			if !joined {
				return false, errors.New("the control plane did not answer in time")
			}
		case <-c.wake:
		case r := <-n.responses:
			if err := n.ads.Send(c.apply(r)); err != nil {
				return joined, err
			}
		case m := <-n.messages:
			if !joined {
				joined = true
				c.judge(nil)
			}
			c.hear(m)
		}
	}
}

// tell sends what has become due.
func (c *Client) tell(n *connection, joined bool) error {
	c.mu.Lock()
	requests := c.protocol.Requests()
	if len(requests) == 0 {
		if r := c.protocol.Greeting(typeURLs[KindService]); r != nil {
			requests = append(requests, r)
		}
	}
	var messages []*tullepb.FromProxy
	if joined {
		messages = c.due()
	}
	c.mu.Unlock()
	for _, r := range requests {
		if err := n.ads.Send(r); err != nil {
			return err
		}
	}
	for _, m := range messages {
		if err := n.session.Send(m); err != nil {
			return err
		}
	}
	return nil
}
