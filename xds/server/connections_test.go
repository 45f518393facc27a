package server_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/identity/svid/svidtest"
	"github.com/tulle-mesh/tulle/xds/server"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

func meshID(account string) spiffe.ID {
	return spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: account}
}

// TestConnectionsEnd: who is refused loses what is open, with every stream on it, and is not let in again; others notice nothing.
func TestConnectionsEnd(t *testing.T) {
	ca := svidtest.New(t)
	var refused atomic.Pointer[spiffe.ID]
	var certificate atomic.Bool
	open := server.NewConnections(ca.Issue(meshID("control")), func(id spiffe.ID, chain []*x509.Certificate) error {
		if bad := refused.Load(); bad != nil && id == *bad && len(chain) > 0 {
			if certificate.Load() {
				return svid.ErrCertificate
			}
			return svid.ErrRevoked
		}
		return nil
	})
	g := grpc.NewServer(open.Options()...)
	sessions := joined{}
	server.New(server.Config{Sessions: sessions}).Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go g.Serve(l) // ends with Stop
	t.Cleanup(g.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	join := func(who string) (grpc.BidiStreamingClient[tullepb.FromProxy, tullepb.ToProxy], error) {
		creds := credentials.NewTLS(svid.ClientConfig(ca.Issue(meshID(who)), meshID("control")))
		c, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s, err := tullepb.NewSessionClient(c).Join(ctx)
		if err != nil {
			return nil, err
		}
		hello := &tullepb.Hello{Workload: who + "-1", Namespace: "default", Service: who, ServiceAccount: who}
		if err := s.Send(&tullepb.FromProxy{What: &tullepb.FromProxy_Hello{Hello: hello}}); err != nil && err != io.EOF {
			return nil, err
		}
		_, err = s.Recv()
		return s, err
	}
	bad, err := join("bad")
	if err != nil {
		t.Fatal(err)
	}
	good, err := join("good")
	if err != nil {
		t.Fatal(err)
	}
	id := meshID("bad")
	refused.Store(&id)
	if n := open.Review(); n != 1 {
		t.Errorf("%d connections ended, want 1", n)
	}
	if _, err := bad.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the session of who is refused: %v", err)
	}
	if _, err := join("bad"); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("who comes again: %v", err)
	}
	certificate.Store(true)
	if _, err := join("bad"); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("who comes again with a certificate that alone is revoked: %v", err)
	}
	refused.Store(nil)
	if _, err := join("bad"); err != nil {
		t.Errorf("restored: %v", err)
	}
	if err := good.Send(&tullepb.FromProxy{What: &tullepb.FromProxy_Goodbye{Goodbye: &tullepb.Goodbye{}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := good.Recv(); err != nil {
		t.Errorf("the session of somebody else: %v", err)
	}
	if n := open.Review(); n != 0 {
		t.Errorf("%d connections ended again", n)
	}
}

// joined takes every session.
type joined struct{}

func (joined) Begin(spiffe.ID, server.Hello) (server.Session, error) { return heard{}, nil }

type heard struct{ server.Session }

func (heard) Goodbye(context.Context) int { return 0 }
func (heard) End(bool)                    {}

// TestConnectionsAreBounded: an identity has so many connections and no more, whoever has too many is told why, others are not
// concerned, and what has ended makes room.
func TestConnectionsAreBounded(t *testing.T) {
	ca := svidtest.New(t)
	open := server.NewConnections(ca.Issue(meshID("control")), nil)
	open.Bound(2)
	g := grpc.NewServer(open.Options()...)
	server.New(server.Config{Sessions: joined{}}).Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go g.Serve(l) // ends with Stop
	t.Cleanup(g.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	join := func(who string) (*grpc.ClientConn, error) {
		creds := credentials.NewTLS(svid.ClientConfig(ca.Issue(meshID(who)), meshID("control")))
		c, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s, err := tullepb.NewSessionClient(c).Join(ctx)
		if err != nil {
			return c, err
		}
		if err := s.Send(&tullepb.FromProxy{What: &tullepb.FromProxy_Hello{Hello: &tullepb.Hello{Workload: who + "-1", Namespace: "default", Service: who, ServiceAccount: who}}}); err != nil && err != io.EOF {
			return c, err
		}
		_, err = s.Recv()
		return c, err
	}
	first, err := join("cart")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := join("cart"); err != nil {
		t.Fatal(err)
	}
	if _, err := join("cart"); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "has 2 connections to this control plane already") {
		t.Errorf("the third: %v", err)
	}
	if _, err := join("web"); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	if _, refused := open.Count(); refused != 1 {
		t.Errorf("%d were refused", refused)
	}
	first.Close()
	for err = errors.New("not tried"); err != nil && ctx.Err() == nil; {
		if _, err = join("cart"); err != nil {
			time.Sleep(50 * time.Millisecond) // poll
		}
	}
	if err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	for ctx.Err() == nil { // what was refused is closed
		if n, _ := open.Count(); n == 3 {
			return
		}
		time.Sleep(50 * time.Millisecond) // poll
	}
	n, _ := open.Count()
	t.Errorf("%d connections are open", n)
}
