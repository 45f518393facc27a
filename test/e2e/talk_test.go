//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/examples/shop"
	"github.com/tulle-mesh/tulle/examples/shop/shoppb"
)

// shopMain is a service of the shop.
func shopMain(args []string) error {
	if code := shop.Main(args, shop.Config{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), Out: os.Stdout}); code != 0 {
		return fmt.Errorf("the shop ended with %d", code)
	}
	return nil
}

// talkMain is a program that talks: it echoes what comes over WebSockets on port 8080 and over streams of gRPC on port 9000.
// On SIGTERM it ends each of them as such programs do: with the close code 1001, and with a status.
func talkMain([]string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	web, err := net.Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	rpc, err := net.Listen("tcp", ":9000")
	if err != nil {
		return err
	}
	var open sync.WaitGroup
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /talk", func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		open.Go(func() { talkBack(ctx, c, rw, r.Header.Get("Sec-WebSocket-Key")) })
	})
	hs := &http.Server{Handler: mux}
	gs := grpc.NewServer()
	gs.RegisterService(&grpc.ServiceDesc{ServiceName: "talk", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Talk", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return talkStream(ctx, s) }}}}, struct{}{})
	go hs.Serve(web)
	go gs.Serve(rpc)
	<-ctx.Done()
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = hs.Shutdown(end)
	gs.GracefulStop()
	open.Wait()
	return err
}

// talkStream echoes until the client ends, or this program is to.
func talkStream(ctx context.Context, s grpc.ServerStream) error {
	got, failed := make(chan *wrapperspb.StringValue), make(chan error, 1)
	go func() {
		for {
			m := &wrapperspb.StringValue{}
			if err := s.RecvMsg(m); err != nil {
				failed <- err
				return
			}
			select {
			case got <- m:
			case <-s.Context().Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil // OK, in the trailers
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case m := <-got:
			if err := s.SendMsg(m); err != nil {
				return err
			}
		}
	}
}

// Opcodes of WebSocket (RFC 6455 section 5.2).
const (
	wsText  = 1
	wsClose = 8

	goingAway = "\x03\xe9" // close code 1001
)

// readFrame reads a short frame.
func readFrame(r *bufio.Reader) (op byte, data []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n, mask := int(head[1]&0x7f), [4]byte{}
	if n > 125 {
		return 0, nil, errors.New("a long frame")
	}
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	data = make([]byte, n)
	_, err = io.ReadFull(r, data)
	for i := range data {
		data[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, data, err
}

// frame answers one; a client's is masked, with zeros.
func frame(op byte, client bool, data string) []byte {
	b := []byte{0x80 | op, byte(len(data))}
	if client {
		b[1] |= 0x80
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, data...)
}

// talkBack echoes frames until one side closes.
func talkBack(ctx context.Context, c net.Conn, rw *bufio.ReadWriter, key string) {
	defer c.Close()
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	var mu sync.Mutex // for who writes
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) // for the client's close frame
		_, _ = c.Write(frame(wsClose, false, goingAway))
	})
	defer stop()
	for {
		op, data, err := readFrame(rw.Reader)
		if err != nil {
			return
		}
		mu.Lock()
		if op == wsClose || ctx.Err() == nil {
			_, err = c.Write(frame(op, false, string(data)))
		}
		mu.Unlock()
		if err != nil || op == wsClose {
			return
		}
	}
}

// errGraceful is the end of a stream that says why it ends.
var errGraceful = errors.New("ended gracefully")

// talkLoadMain keeps WebSockets to args[0] and streams of gRPC to args[1] open, two of each, until SIGTERM, and counts echoes.
// One that ends gracefully is opened again, and noted in opened; any other end is a failure.
func talkLoadMain(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l := &load{sum: counts{Errors: map[string]int{}}}
	var all sync.WaitGroup
	for name, f := range map[string]func(context.Context, string, func()) error{"websocket": talkWeb, "grpc": talkRPC} {
		address := map[string]string{"websocket": args[0], "grpc": args[1]}[name]
		for range 2 {
			all.Go(func() {
				for ctx.Err() == nil {
					err := f(ctx, address, func() {
						l.mu.Lock()
						l.sum.OK++
						l.mu.Unlock()
					})
					l.mu.Lock()
					l.sum.Opened++
					if ctx.Err() == nil && !errors.Is(err, errGraceful) {
						l.sum.Failed++
						l.sum.Errors[fmt.Sprintf("%s: %v", name, plain(err))]++
					}
					l.mu.Unlock()
				}
			})
		}
	}
	l.tell(ctx)
	all.Wait()
	l.print(true)
	return nil
}

// tell prints the counts until ctx ends.
func (l *load) tell(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			l.print(false)
		}
	}
}

// talkWeb talks over a WebSocket until ctx ends, with the fields that a gRPC call would have.
func talkWeb(ctx context.Context, address string, answered func()) error {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	var fields strings.Builder
	if said, ok := metadata.FromOutgoingContext(ctx); ok {
		for name, all := range said {
			fmt.Fprintf(&fields, "%s: %s\r\n", name, strings.Join(all, ","))
		}
	}
	fmt.Fprintf(c, "GET /talk HTTP/1.1\r\nHost: %s\r\n%sConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", address, &fields)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(resp.Status)
	}
	return exchange(ctx, c, func() error {
		if _, err := c.Write(frame(wsText, true, "hello")); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		op, data, err := readFrame(r)
		switch {
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case op == wsClose && strings.HasPrefix(string(data), goingAway):
			_, _ = c.Write(frame(wsClose, true, string(data))) // it may have gone
			return errGraceful
		case op != wsText || string(data) != "hello":
			return fmt.Errorf("another echo: %d %q", op, data)
		}
		return nil
	}, answered)
}

func talkRPC(ctx context.Context, address string, answered func()) error {
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/talk/Talk")
	if err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := s.SendMsg(wrapperspb.String("hello")); err != nil && !errors.Is(err, io.EOF) { // else RecvMsg says why
			return err
		}
		m := &wrapperspb.StringValue{}
		switch err := s.RecvMsg(m); {
		case errors.Is(err, io.EOF): // status OK
			return errGraceful
		case err != nil:
			return err
		case m.GetValue() != "hello":
			return fmt.Errorf("another echo: %q", m.GetValue())
		}
		answered()
		<-tick.C
	}
	return ctx.Err()
}

// shopLoadMain charges cards at args[0] and places orders at args[1], over one connection each, until SIGTERM. An empty
// cart is an answer like another.
func shopLoadMain(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l := &load{sum: counts{Errors: map[string]int{}}}
	var all sync.WaitGroup
	for i, call := range []func(context.Context, *grpc.ClientConn) error{
		func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := shoppb.NewPaymentClient(c).Charge(ctx, &shoppb.ChargeRequest{Card: "4111111111111111", Cents: 100})
			return err
		},
		func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := shoppb.NewCheckoutClient(c).PlaceOrder(ctx, &shoppb.PlaceOrderRequest{User: "orders", Card: "4111111111111111"})
			if status.Code(err) == codes.FailedPrecondition {
				err = nil
			}
			return err
		},
	} {
		c, err := grpc.NewClient("passthrough:///"+args[i], grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
		if err != nil {
			return err
		}
		defer c.Close()
		all.Go(func() {
			l.unary(ctx, fmt.Sprint(i), time.Duration(6+10*i)*time.Millisecond, func(ctx context.Context) error { return call(ctx, c) })
		})
	}
	l.tell(ctx)
	all.Wait()
	l.print(true)
	return nil
}

// unary makes a call now and then until ctx ends.
func (l *load) unary(ctx context.Context, name string, every time.Duration, call func(context.Context) error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := call(one)
		cancel()
		l.mu.Lock()
		if err == nil {
			l.sum.OK++
		} else {
			l.sum.Failed++
			l.sum.Errors[name+": "+err.Error()]++
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
