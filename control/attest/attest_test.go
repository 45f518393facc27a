package attest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	server "github.com/tulle-mesh/tulle/control/attest"
	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/identity/attest"
	"github.com/tulle-mesh/tulle/identity/attest/attestpb"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"

	"google.golang.org/grpc/credentials"
)

// plane is a control plane that only gives identities.
type plane struct {
	address, socket string
	authority       *ca.CA
	tokens          *token.Tokens
	own             *svid.Rotator
	remote          *grpc.Server
	refused         *atomic.Bool // everybody is
}

func start(t *testing.T) plane {
	t.Helper()
	p := plane{refused: &atomic.Bool{}}
	var err error
	if p.authority, err = ca.Open(ca.Config{Dir: filepath.Join(t.TempDir(), "ca")}, time.Now()); err != nil {
		t.Fatal(err)
	}
	store := mem.New(100)
	t.Cleanup(func() { store.Close() })
	p.tokens = token.New(store, func() []byte { return p.authority.RootsDER()[0] })
	if p.own, err = server.Own(t.Context(), server.Local{CA: p.authority}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.own.Close)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address, p.socket = tcp.Addr().String(), filepath.Join(t.TempDir(), "control.sock")
	unix, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := server.New(server.Config{Authority: server.Local{CA: p.authority}, Tokens: p.tokens, Address: p.address, Server: server.ServerID("tulle.local"),
		Refuses: func(spiffe.ID) error {
			if p.refused.Load() {
				return svid.ErrRevoked
			}
			return nil
		}})
	remote, local := grpc.NewServer(grpc.Creds(credentials.NewTLS(svid.ServerConfig(p.own)))), s.LocalServer()
	s.Register(remote)
	p.remote = remote
	go remote.Serve(tcp) // both end with Stop
	go local.Serve(unix)
	t.Cleanup(remote.Stop)
	t.Cleanup(local.Stop)
	return p
}

func ctx(t *testing.T) context.Context {
	c, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return c
}

const cart = "spiffe://tulle.local/ns/default/sa/cart"

func TestLocalAndRenewal(t *testing.T) {
	p := start(t)
	id, err := attest.Start(ctx(t), attest.Config{Namespace: "default", ServiceAccount: "cart", Socket: p.socket})
	if err != nil {
		t.Fatal(err)
	}
	defer id.Close()
	if id.Current().ID.String() != cart || id.Address != p.address || id.Server != server.ServerID("tulle.local") {
		t.Errorf("granted %s, %s, %s", id.Current().ID, id.Address, id.Server)
	}
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(credentials.NewTLS(svid.ClientConfig(id, id.Server))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	key, err := svid.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := svid.Request(key, id.Current().ID)
	if err != nil {
		t.Fatal(err)
	}
	g, err := attestpb.NewIdentityClient(conn).Renew(ctx(t), &attestpb.RenewRequest{Csr: csr})
	if err != nil {
		t.Fatal(err)
	}
	next, err := svid.New(key, g.Chain, g.Roots)
	if err != nil || next.ID.String() != cart || time.Until(next.NotAfter) < 23*time.Hour {
		t.Errorf("renewed %+v, %v", next, err)
	}
}

func TestToken(t *testing.T) {
	p := start(t)
	text, _, err := p.tokens.Issue(t.Context(), token.Spec{Namespace: "default", ServiceAccount: "cart", TTL: time.Hour, Uses: 1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	try := func(p plane, account string) error {
		id, err := attest.Start(ctx(t), attest.Config{Namespace: "default", ServiceAccount: account, Token: text, Address: p.address})
		if err == nil {
			id.Close()
		}
		return err
	}
	if err := try(p, "thief"); !errors.Is(err, attest.ErrRefused) {
		t.Errorf("for another service account: %v", err)
	}
	if err := try(start(t), "cart"); err == nil || !strings.Contains(err.Error(), "its root is another one") {
		t.Errorf("at another control plane: %v", err)
	}
	if err := try(p, "cart"); err != nil {
		t.Errorf("as it was meant: %v", err)
	}
	if err := try(p, "cart"); err == nil {
		t.Error("a token for one use was used twice")
	}
}

// TestResume: a process goes on with the identity of the one before, although the join token is used up and the control
// plane away; when it is back, what is due is renewed.
func TestResume(t *testing.T) {
	p := start(t)
	text, _, err := p.tokens.Issue(t.Context(), token.Spec{Namespace: "default", Any: true, TTL: time.Hour, Uses: 1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cfg := attest.Config{Namespace: "default", ServiceAccount: "cart", Token: text, Address: p.address}
	before, err := attest.Start(ctx(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var kept []byte
	before.Tell(func(s *svid.SVID) { kept, err = before.Hold(s) })
	before.Close()
	if err != nil {
		t.Fatal(err)
	}
	p.remote.Stop()
	id, err := attest.Resume(cfg, kept)
	if err != nil {
		t.Fatal(err)
	}
	id.Close()
	if id.Current().ID.String() != cart || id.Address != p.address || id.Server != before.Server ||
		!id.Current().Certificate.Leaf.Equal(before.Current().Certificate.Leaf) || !id.Current().Roots.Equal(before.Current().Roots) {
		t.Errorf("resumed %+v as %+v", before, id)
	}
	cfg.ServiceAccount = "thief"
	if _, err := attest.Resume(cfg, kept); err == nil {
		t.Error("an identity was resumed for another service account")
	}
}

// kept is an identity that was given some time ago.
// TestRevokedCertificate: whose certificate was revoked proves himself as he did at first, and does not show that certificate; who has
// nothing to do that with is told what he needs.
func TestRevokedCertificate(t *testing.T) {
	p := start(t)
	issue := func(uses int) string {
		text, _, err := p.tokens.Issue(t.Context(), token.Spec{Namespace: "default", ServiceAccount: "cart", TTL: time.Hour, Uses: uses}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for how, c := range map[string]struct {
		cfg  attest.Config
		want string // of the error; "": there is another certificate
	}{
		"socket":                  {attest.Config{Socket: p.socket}, ""},
		"a token for two":         {attest.Config{Token: issue(2), Address: p.address}, ""},
		"a token that is used up": {attest.Config{Token: issue(1), Address: p.address}, "make another with 'tulle token --service cart'"},
	} {
		t.Run(how, func(t *testing.T) {
			c.cfg.Namespace, c.cfg.ServiceAccount = "default", "cart"
			id, err := attest.Start(ctx(t), c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer id.Close()
			first := id.Current()
			id.Judged(first, fmt.Errorf("it was %w", svid.ErrCertificate))
			for ctx := ctx(t); ctx.Err() == nil; time.Sleep(5 * time.Millisecond) { // poll
				if f, _ := id.Failing(); f != nil && c.want != "" {
					if text := f.Err.Error(); !strings.Contains(text, c.want) || !strings.Contains(text, "revoked") || strings.Contains(text, "\n") {
						t.Error(text)
					}
					return
				}
				if now := id.Current(); now.Certificate.Leaf != first.Certificate.Leaf {
					if c.want != "" || now.Revoked() != nil || now.ID != first.ID {
						t.Errorf("%s, revoked: %v", now.ID, now.Revoked())
					}
					return
				}
			}
			t.Error("nothing has come of it")
		})
	}
}

func (p plane) kept(t *testing.T, ago time.Duration) []byte {
	t.Helper()
	key, err := svid.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := spiffe.ParseID(cart)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := p.authority.SignKey(&key.PublicKey, id, server.TTL, time.Now().Add(-ago))
	if err != nil {
		t.Fatal(err)
	}
	s, err := svid.New(key, issued.Chain, p.authority.RootsDER())
	if err != nil {
		t.Fatal(err)
	}
	kept, err := (&attest.Identity{Address: p.address, Server: server.ServerID("tulle.local")}).Hold(s)
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

func TestResumeRenews(t *testing.T) {
	p := start(t)
	cfg := attest.Config{Namespace: "default", ServiceAccount: "cart", Token: "used up", Address: p.address}
	id, err := attest.Resume(cfg, p.kept(t, 20*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer id.Close()
	told := make(chan *svid.SVID, 2)
	id.Tell(func(s *svid.SVID) { told <- s })
	if s := <-told; time.Until(s.NotAfter) > 5*time.Hour {
		t.Errorf("resumed one that lasts until %v", s.NotAfter)
	}
	select {
	case s := <-told:
		if time.Until(s.NotAfter) < 23*time.Hour || id.Current() != s {
			t.Errorf("renewed until %v", s.NotAfter)
		}
	case <-time.After(10 * time.Second):
		t.Error("not renewed")
	}
	if _, err := attest.Resume(cfg, p.kept(t, 25*time.Hour)); !errors.Is(err, attest.ErrEnded) {
		t.Errorf("one that has ended: %v", err)
	}
	for _, bad := range []string{"", "{}", "null", `{"Key":"AAAA"}`} {
		if _, err := attest.Resume(cfg, []byte(bad)); err == nil {
			t.Errorf("resumed from %q", bad)
		}
	}
}

func TestNobodyBecomesTheControlPlane(t *testing.T) {
	p := start(t)
	if _, err := attest.Start(ctx(t), attest.Config{Namespace: "tulle-system", ServiceAccount: "control", Socket: p.socket}); err == nil {
		t.Error("a local process was given the control plane's identity")
	}
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(credentials.NewTLS(svid.ClientConfig(p.own, server.ServerID("tulle.local")))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := attestpb.NewIdentityClient(conn).Attest(ctx(t), &attestpb.AttestRequest{Namespace: "default", ServiceAccount: "cart"}); err == nil {
		t.Error("no token and no socket, and yet an identity")
	}
}

// TestClockSkew: a machine's clock that is wrong is noticed with the first certificate, and certificates are judged by the control
// plane's from then on; one that is too far behind cannot join, and says why.
func TestClockSkew(t *testing.T) {
	p := start(t)
	join := func(ahead time.Duration) (*attest.Identity, error) {
		text, _, err := p.tokens.Issue(t.Context(), token.Spec{Service: "cart"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return attest.Start(ctx(t), attest.Config{Namespace: "default", ServiceAccount: "cart", Token: text, Address: p.address,
			Clock: &svid.Clock{Wall: func() time.Time { return time.Now().Add(ahead) }}})
	}
	for _, wrong := range []time.Duration{3 * time.Hour, -4 * time.Minute} {
		id, err := join(wrong)
		if err != nil {
			t.Errorf("wrong by %s: %v", wrong, err)
			continue
		}
		id.Close()
		if d, known := id.Clock().Ahead(); !known || (d-wrong).Abs() > time.Second || time.Since(id.Now()).Abs() > time.Second {
			t.Errorf("wrong by %s: measured %s, and believed to be %s", wrong, d, id.Now())
		}
	}
	for _, wrong := range []time.Duration{-6 * time.Minute, 25 * time.Hour} {
		if _, err := join(wrong); err == nil || !strings.Contains(err.Error(), "compare the clocks") {
			t.Errorf("wrong by %s: %v", wrong, err)
		}
	}
}

// TestNoIdentityForWhoIsRefused: neither with a token, nor by the socket, nor for a renewal.
func TestNoIdentityForWhoIsRefused(t *testing.T) {
	p := start(t)
	id, err := attest.Start(ctx(t), attest.Config{Namespace: "default", ServiceAccount: "cart", Socket: p.socket})
	if err != nil {
		t.Fatal(err)
	}
	defer id.Close()
	p.refused.Store(true)
	text, _, err := p.tokens.Issue(t.Context(), token.Spec{Service: "cart"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for what, cfg := range map[string]attest.Config{"socket": {Socket: p.socket}, "token": {Token: text, Address: p.address}} {
		cfg.Namespace, cfg.ServiceAccount = "default", "cart"
		if _, err := attest.Start(ctx(t), cfg); !errors.Is(err, attest.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(credentials.NewTLS(svid.ClientConfig(id, id.Server))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	key, err := svid.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := svid.Request(key, id.Current().ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attestpb.NewIdentityClient(conn).Renew(ctx(t), &attestpb.RenewRequest{Csr: csr}); err == nil {
		t.Error("renewed")
	}
}
