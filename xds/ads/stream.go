package ads

import (
	"context"
	"net"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// maxResponse bounds one response, in bytes.
const maxResponse = 64 << 20

// secured lets Config.Authority differ from the name that the server has to prove.
type secured struct {
	credentials.TransportCredentials
}

func (s secured) Info() credentials.ProtocolInfo {
	i := s.TransportCredentials.Info()
	i.ServerName = "" //lint:ignore SA1019 gRPC compares it with the authority and refuses to differ
	return i
}

func (s secured) Clone() credentials.TransportCredentials {
	return secured{s.TransportCredentials.Clone()}
}

// dial prepares the connection; it is made by the stream.
func (c *Client) dial(address string) (*grpc.ClientConn, error) {
	dial := c.cfg.Dial
	if dial == nil {
		dial = func(ctx context.Context, a string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", a)
		}
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0),
	}
	if c.cfg.TLS != nil {
		options = append(options, grpc.WithTransportCredentials(secured{credentials.NewTLS(c.cfg.TLS)}))
	}
	if c.cfg.Authority != "" {
		options = append(options, grpc.WithAuthority(c.cfg.Authority))
	}
	if c.cfg.KeepAlive > 0 {
		options = append(options, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: c.cfg.KeepAlive, Timeout: c.cfg.KeepAliveTimeout}))
	}
	return grpc.NewClient("passthrough:///"+address, options...)
}

// serve runs one stream to its end; heard is whether it has brought a response.
func (c *Client) serve(parent context.Context, address string) (heard bool, err error) {
	var reader sync.WaitGroup
	defer reader.Wait()
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	conn, err := c.dial(address)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	for _, h := range c.cfg.Headers {
		ctx = metadata.AppendToOutgoingContext(ctx, h.Name, h.Value)
	}
	method := discovery.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName
	if c.cfg.Delta {
		method = discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return false, err
	}
	responses, failed := make(chan proto.Message), make(chan error, 1)
	reader.Go(func() { c.read(ctx, stream, responses, failed) }) // ends with the stream, which ends with ctx
	c.mu.Lock()
	c.tongue.restart()
	c.mu.Unlock()
	for {
		if err := c.ask(stream); err != nil {
			return heard, reason(failed, err)
		}
		select {
		case <-ctx.Done():
			return heard, ctx.Err()
		case err := <-failed:
			return heard, err
		case <-c.wake:
		case r := <-responses:
			heard = true
			c.here(address)
			if err := c.take(stream, r); err != nil {
				return heard, reason(failed, err)
			}
		}
	}
}

// reason answers why the stream has ended: what Send says of that is only EOF.
func reason(failed <-chan error, err error) error {
	select {
	case e := <-failed:
		return e
	default:
		return err
	}
}

// read passes on what the stream brings until it fails.
func (c *Client) read(ctx context.Context, stream grpc.ClientStream, to chan<- proto.Message, failed chan<- error) {
	for {
		var m proto.Message = &discovery.DiscoveryResponse{}
		if c.cfg.Delta {
			m = &discovery.DeltaDiscoveryResponse{}
		}
		if err := stream.RecvMsg(m); err != nil {
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

// ask sends what has become due.
func (c *Client) ask(stream grpc.ClientStream) error {
	c.mu.Lock()
	due := c.tongue.ask()
	c.mu.Unlock()
	for _, m := range due {
		if err := stream.SendMsg(m); err != nil {
			return err
		}
	}
	return nil
}

// take gives a response to the sink and answers it.
func (c *Client) take(stream grpc.ClientStream, r proto.Message) error {
	c.mu.Lock()
	b, ok := c.tongue.hear(r)
	c.mu.Unlock()
	if !ok {
		return nil
	}
	refused := c.apply(b)
	c.mu.Lock()
	answer := c.tongue.answer(r, b, refused)
	c.mu.Unlock()
	return stream.SendMsg(answer)
}
