package attest_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	server "github.com/tulle-mesh/tulle/control/attest"
	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/external"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/control/ca/issuer/vault"
	"github.com/tulle-mesh/tulle/control/ca/issuer/vault/vaulttest"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/identity/attest"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// theirs is an authority that needs the name in a request, and does not sign for a while.
type theirs struct {
	server.Local

	mu   sync.Mutex
	away int // so many requests are not answered
	seen []string
}

func (a *theirs) Admit(csr []byte, id spiffe.ID) error {
	if req, err := x509.ParseCertificateRequest(csr); err != nil || len(req.URIs) == 0 {
		return external.ErrNameless
	}
	return nil
}

func (a *theirs) Sign(ctx context.Context, csr []byte, id spiffe.ID, ttl time.Duration, now time.Time) (*ca.Issued, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, string(csr))
	if a.away > 0 {
		a.away--
		return nil, errAway
	}
	return a.Local.Sign(ctx, csr, id, ttl, now)
}

var errAway = fmt.Errorf("%w: %w", external.ErrNotNow, &issuer.Error{Issuer: "they", What: "sign", Err: errors.New("away"), Again: true})

// TestOwnIsKept: a control plane that starts while nobody signs goes on with its certificate of before.
func TestOwnIsKept(t *testing.T) {
	v := vaulttest.New(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	i, err := vault.New(vault.Config{Address: v.URL, CAFile: write("ca.pem", string(v.ServerCA())), Role: "mesh", TokenFile: write("token", v.Token)})
	if err != nil {
		t.Fatal(err)
	}
	cfg := external.Config{Issuer: i, Dir: filepath.Join(dir, "issuer"), TrustDomain: issuertest.TrustDomain, Leaf: time.Hour}
	start := func() (*svid.Rotator, error) {
		t.Helper()
		a, err := external.Open(t.Context(), cfg, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		return server.Own(ctx(t), a, nil)
	}
	first, err := start()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	v.Seal(true)
	again, err := start()
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if !again.Current().Certificate.Leaf.Equal(first.Current().Certificate.Leaf) {
		t.Error("another certificate, by nobody")
	}
	path := filepath.Join(cfg.Dir, "own.pem")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	v.Seal(false)
	v.Allow("spiffe://nobody/*")
	if _, err := start(); err == nil || !strings.Contains(err.Error(), "not valid for this role") {
		t.Errorf("what cannot go well is waited for: %v", err)
	}
	v.Allow("spiffe://*")
	last, err := start()
	if err != nil {
		t.Fatal(err)
	}
	last.Close()
}

// TestSomebodyElseSigns: a proxy that does not know its name yet is told it before its token is used; what is not answered is asked
// for again with the same request, and gives the token's use back.
func TestSomebodyElseSigns(t *testing.T) {
	own, err := ca.Open(ca.Config{Dir: filepath.Join(t.TempDir(), "ca")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := &theirs{Local: server.Local{CA: own}, away: 1}
	id, err := server.Own(ctx(t), a, nil) // waits
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(id.Close)
	if len(a.seen) != 2 || a.seen[0] != a.seen[1] {
		t.Errorf("the control plane showed %d requests, want the same one twice", len(a.seen))
	}
	store := mem.New(100)
	t.Cleanup(func() { store.Close() })
	tokens := token.New(store, func() []byte { return own.RootsDER()[0] })
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := server.New(server.Config{Authority: a, Tokens: tokens, Address: tcp.Addr().String(), Server: server.ServerID("tulle.local")})
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(svid.ServerConfig(id))))
	s.Register(g)
	go g.Serve(tcp) // ends with Stop
	t.Cleanup(g.Stop)

	text, _, err := tokens.Issue(t.Context(), token.Spec{Service: "cart", Uses: 1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	a.away, a.seen = 2, nil
	a.mu.Unlock()
	cart, err := attest.Start(ctx(t), attest.Config{Namespace: "default", ServiceAccount: "cart", Token: text, Address: tcp.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	cart.Close()
	if len(a.seen) != 3 || a.seen[0] != a.seen[2] {
		t.Errorf("%d requests, want the same one three times", len(a.seen))
	}
	if list, err := tokens.List(t.Context(), time.Now()); err != nil || len(list) != 0 {
		t.Errorf("the token is not used up: %v, %v", list, err)
	}

	text, _, err = tokens.Issue(t.Context(), token.Spec{Service: "cart", Uses: 1}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	a.away = 1_000
	a.mu.Unlock()
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := attest.Start(short, attest.Config{Namespace: "default", ServiceAccount: "cart", Token: text, Address: tcp.Addr().String()}); err == nil {
		t.Fatal("an identity of nobody")
	} else if strings.Contains(err.Error(), text) {
		t.Error("the token is in the error")
	}
	g.GracefulStop() // what is under way gives its use back
	if list, err := tokens.List(t.Context(), time.Now()); err != nil || len(list) != 1 || list[0].Uses != 1 {
		t.Errorf("the token lost its use: %v, %v", list, err)
	}
}
