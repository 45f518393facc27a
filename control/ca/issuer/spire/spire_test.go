package spire_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/control/ca/issuer/spire"
	"github.com/tulle-mesh/tulle/identity/svid"
)

const secret = "4b1d2c9e-join-token"

// fake answers as far as this issuer asks what a SPIRE server answers, as the sources of SPIRE 1.13.0 have it.
type fake struct {
	agentv1.UnimplementedAgentServer
	bundlev1.UnimplementedBundleServer
	entryv1.UnimplementedEntryServer
	svidv1.UnimplementedSVIDServer

	t      *testing.T
	dir    string
	server *grpc.Server
	cfg    spire.Config

	mu      sync.Mutex
	trees   []*issuertest.Tree // the last one signs
	used    bool               // the join token
	agents  time.Duration      // life of an agent's certificate
	active  string             // serial number of the agent's certificate in force
	renewed int
	listed  int // how often entries were asked for
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, dir: t.TempDir(), agents: time.Hour}
	f.trees = []*issuertest.Tree{issuertest.NewTree(t, "spire 0")}
	key, err := svid.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	own := f.sign("/spire/server", &key.PublicKey, time.Hour)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.server = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{{Certificate: own, PrivateKey: key}}})))
	agentv1.RegisterAgentServer(f.server, f)
	bundlev1.RegisterBundleServer(f.server, f)
	entryv1.RegisterEntryServer(f.server, f)
	svidv1.RegisterSVIDServer(f.server, f)
	go f.server.Serve(l) // ends with Stop
	t.Cleanup(f.server.Stop)
	f.cfg = spire.Config{Address: l.Addr().String(), TrustDomain: issuertest.TrustDomain, Bundle: f.write("bundle.pem", string(f.trees[0].RootPEM())),
		Token: f.write("token", secret+"\n"), Dir: filepath.Join(f.dir, "agent")}
	return f
}

func (f *fake) write(name, text string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f *fake) open(cfg spire.Config) *spire.Issuer {
	f.t.Helper()
	i, err := spire.New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(i.Close)
	return i
}

// sign answers a chain for a path of the trust domain.
func (f *fake) sign(path string, key any, life time.Duration) [][]byte {
	f.mu.Lock()
	tree := f.trees[len(f.trees)-1]
	f.mu.Unlock()
	c := tree.Sign(&x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: issuertest.TrustDomain, Path: path}}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, NotBefore: time.Now().Add(-10 * time.Second), NotAfter: time.Now().Add(life)}, key)
	return [][]byte{c.Raw}
}

func (f *fake) agent(csr []byte) (*types.X509SVID, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "malformed CSR")
	}
	chain := f.sign("/spire/agent/join_token/"+secret[:8], req.PublicKey, f.agents)
	c, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.active = c.SerialNumber.String()
	f.mu.Unlock()
	return &types.X509SVID{CertChain: chain, ExpiresAt: c.NotAfter.Unix()}, nil
}

// known refuses who is not the agent, with the certificate in force.
func (f *fake) known(ctx context.Context) error {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
			f.mu.Lock()
			defer f.mu.Unlock()
			if info.State.PeerCertificates[0].SerialNumber.String() == f.active {
				return nil
			}
		}
	}
	return status.Error(codes.PermissionDenied, "agent is not active")
}

func (f *fake) AttestAgent(stream agentv1.Agent_AttestAgentServer) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	f.mu.Lock()
	bad := f.used || m.GetParams().GetData().GetType() != "join_token" || string(m.GetParams().GetData().GetPayload()) != secret
	f.used = true
	f.mu.Unlock()
	if bad {
		return status.Error(codes.InvalidArgument, "failed to attest: join token does not exist or has already been used")
	}
	s, err := f.agent(m.GetParams().GetParams().GetCsr())
	if err != nil {
		return err
	}
	return stream.Send(&agentv1.AttestAgentResponse{Step: &agentv1.AttestAgentResponse_Result_{Result: &agentv1.AttestAgentResponse_Result{Svid: s}}})
}

func (f *fake) RenewAgent(ctx context.Context, r *agentv1.RenewAgentRequest) (*agentv1.RenewAgentResponse, error) {
	if err := f.known(ctx); err != nil {
		return nil, err
	}
	s, err := f.agent(r.GetParams().GetCsr())
	f.mu.Lock()
	f.renewed++
	f.mu.Unlock()
	return &agentv1.RenewAgentResponse{Svid: s}, err
}

func (f *fake) GetBundle(context.Context, *bundlev1.GetBundleRequest) (*types.Bundle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := &types.Bundle{TrustDomain: issuertest.TrustDomain}
	for _, x := range f.trees {
		b.X509Authorities = append(b.X509Authorities, &types.X509Certificate{Asn1: x.Root.Raw})
	}
	return b, nil
}

func (f *fake) GetAuthorizedEntries(ctx context.Context, _ *entryv1.GetAuthorizedEntriesRequest) (*entryv1.GetAuthorizedEntriesResponse, error) {
	if err := f.known(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listed++
	out := &entryv1.GetAuthorizedEntriesResponse{Entries: []*types.Entry{{Id: "alias", SpiffeId: &types.SPIFFEID{TrustDomain: issuertest.TrustDomain, Path: "/tulle"}}}}
	for _, account := range []string{"cart", "web", "named"} {
		e := &types.Entry{Id: "entry-" + account, SpiffeId: &types.SPIFFEID{TrustDomain: issuertest.TrustDomain, Path: "/ns/default/sa/" + account}}
		if account == "named" {
			e.DnsNames = []string{"named.example"}
		}
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}

func (f *fake) BatchNewX509SVID(ctx context.Context, r *svidv1.BatchNewX509SVIDRequest) (*svidv1.BatchNewX509SVIDResponse, error) {
	if err := f.known(ctx); err != nil {
		return nil, err
	}
	req, err := x509.ParseCertificateRequest(r.GetParams()[0].GetCsr())
	account, ok := strings.CutPrefix(r.GetParams()[0].GetEntryId(), "entry-")
	if err != nil || !ok {
		return &svidv1.BatchNewX509SVIDResponse{Results: []*svidv1.BatchNewX509SVIDResponse_Result{{Status: &types.Status{Code: int32(codes.NotFound), Message: "entry not found or not authorized"}}}}, nil
	}
	return &svidv1.BatchNewX509SVIDResponse{Results: []*svidv1.BatchNewX509SVIDResponse_Result{{Status: &types.Status{},
		Svid: &types.X509SVID{CertChain: f.sign("/ns/default/sa/"+account, req.PublicKey, time.Hour)}}}}, nil
}

func TestContract(t *testing.T) {
	issuertest.Run(t, func(t *testing.T) issuertest.Rig {
		f := newFake(t)
		return issuertest.Rig{Issuer: f.open(f.cfg), Away: f.server.Stop, Secrets: []string{secret}, Rotate: func(context.Context) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.trees = append(f.trees, issuertest.NewTree(t, "spire 1"))
		}}
	})
}

// TestAgent: the join token is used once; the identity that it gave is kept, renewed at half of its life, and asked for again when it has
// ended; what has no entry is refused with what to do.
func TestAgent(t *testing.T) {
	f := newFake(t)
	first := f.open(f.cfg)
	sign := func(i *spire.Issuer, account string) error {
		r, _ := issuertest.Request(t, account)
		_, err := i.Sign(t.Context(), r)
		return err
	}
	if err := sign(first, "cart"); err != nil {
		t.Fatal(err)
	}
	for account, want := range map[string]string{"stranger": "spire-server entry create -parentID spiffe://mesh.example/spire/agent/join_token/" + secret[:8] +
		" -spiffeID spiffe://mesh.example/ns/default/sa/stranger -selector tulle:sa:default/stranger", "named": "DNS"} {
		if err := sign(first, account); err == nil || !strings.Contains(err.Error(), want) || issuer.Again(err) {
			t.Errorf("%s: %v", account, err)
		}
	}
	if info, err := os.Stat(filepath.Join(f.cfg.Dir, "spire-agent.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	cfg := f.cfg
	cfg.Token = ""
	again := f.open(cfg)
	if err := sign(again, "web"); err != nil || f.renewed != 0 {
		t.Errorf("after a restart, without the token: %v, renewed %d times", err, f.renewed)
	}
	if len(again.Warnings(time.Now())) != 0 || len(again.Warnings(time.Now().Add(50*time.Minute))) != 1 {
		t.Error("the alarm is not about the last part of its life")
	}
	other := f.cfg
	other.Dir = filepath.Join(f.dir, "other")
	if err := sign(f.open(other), "cart"); err == nil || !strings.Contains(err.Error(), "token generate") || strings.Contains(err.Error(), secret) {
		t.Errorf("a used token: %v", err)
	}
	if _, err := spire.New(spire.Config{Address: f.cfg.Address, TrustDomain: "mesh.example", Bundle: f.cfg.Bundle, Dir: other.Dir}); err == nil || !strings.Contains(err.Error(), "join token is needed") {
		t.Errorf("without a token: %v", err)
	}
}

// TestAgentIsRenewed: from half of its life on the agent's identity is renewed by whoever asks, and one that has ended needs a token.
func TestAgentIsRenewed(t *testing.T) {
	f := newFake(t)
	f.agents = 5 * time.Second // with the 10 s that have passed before it begins, more than half of its life is over
	i := f.open(f.cfg)
	r, _ := issuertest.Request(t, "cart")
	if _, err := i.Sign(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.agents = time.Hour
	f.mu.Unlock()
	if _, err := i.Sign(t.Context(), r); err != nil || f.renewed != 1 {
		t.Fatalf("%v, renewed %d times", err, f.renewed)
	}
	if _, err := i.Roots(t.Context()); err != nil || f.renewed != 1 {
		t.Errorf("%v, renewed %d times", err, f.renewed)
	}
}

// TestWho: a server that does not prove to be the one of the bundle is not believed, and hears no token.
func TestWho(t *testing.T) {
	f, other := newFake(t), newFake(t)
	cfg := f.cfg
	cfg.Address = other.cfg.Address
	if _, err := f.open(cfg).Roots(t.Context()); err == nil || other.used {
		t.Errorf("%v; it was told the token: %v", err, other.used)
	}
	cfg = f.cfg
	cfg.TrustDomain = "another.example"
	if _, err := f.open(cfg).Roots(t.Context()); err == nil || f.used {
		t.Errorf("%v; it was told the token: %v", err, f.used)
	}
}
