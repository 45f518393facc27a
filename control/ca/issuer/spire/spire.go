// Package spire is a SPIRE server as an issuer. The control plane is one of its agents: it attests with a join token, and may have
// signed what registration entries below it name, and nothing else. Workloads' keys stay with their proxies: SPIRE sees requests. Who
// gets an identity is decided twice, by an entry there and by attestation here. The agent's own key is in a file (mode 0600), since a
// join token is good once. Safe for concurrent use; no goroutine: the agent's identity is renewed by who needs it, at half of its life,
// and the roots are looked at more often than that. Start reading at Issuer.Sign;
// test/conformance/spire runs it with the real server.
package spire

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// Config of an issuer; all but Token and Log are needed.
type Config struct {
	Address     string // host:port of the SPIRE server's API
	TrustDomain string // of the server, and of the mesh
	Bundle      string // file with the server's roots, PEM: whom to believe the first time, and again when it has other roots
	Token       string // file with a join token, mode 0600; needed for the first attestation, and after a life of the agent's identity without a server
	Dir         string // the agent's identity is kept there
	Log         *slog.Logger
}

// Issuer is an open one.
type Issuer struct {
	cfg Config

	attesting sync.Mutex // one attestation or renewal at a time

	mu      sync.Mutex
	agent   *agent              // nil: not attested
	roots   []*x509.Certificate // that the server has named last
	entries map[spiffe.ID]entry
	seen    time.Time // of entries
}

// entry is a registration entry that this agent may have signed.
type entry struct {
	id    string
	names int // DNS names that SPIRE would write into the certificate
}

// entriesFor is how long entries are believed before they are asked for again; one that is not there is asked for at once.
const entriesFor = time.Minute

// maxEntries bounds what is kept of them.
const maxEntries = 50_000

// New makes an issuer; it asks nobody yet.
func New(cfg Config) (*Issuer, error) {
	if cfg.Address == "" || cfg.Bundle == "" || cfg.TrustDomain == "" {
		return nil, errors.New("spire: the address of the server (--issuer-address), a file with its bundle (--issuer-ca) and the trust domain are needed")
	}
	if _, _, err := net.SplitHostPort(cfg.Address); err != nil {
		return nil, fmt.Errorf("spire: address %q: write host:port of the server's API, for example spire.example:8081", cfg.Address)
	}
	if _, err := issuer.ReadRoots(cfg.Bundle); err != nil {
		return nil, fmt.Errorf("spire: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	i := &Issuer{cfg: cfg}
	kept, err := loadAgent(cfg)
	switch {
	case err == nil:
		i.agent = kept
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("spire: the agent's identity: %w: remove the file and give a new join token", err)
	case cfg.Token == "":
		return nil, errors.New("spire: a file with a join token is needed the first time: make one with 'spire-server token generate'")
	}
	return i, nil
}

// Name implements issuer.Issuer.
func (i *Issuer) Name() string { return "SPIRE server at " + i.cfg.Address }

// Close implements issuer.Issuer.
func (i *Issuer) Close() {}

// wrong makes an error of what went wrong; those of the wire may go well again.
func (i *Issuer) wrong(what string, err error) error {
	e, ok := errors.AsType[*issuer.Error](err)
	if !ok {
		e = &issuer.Error{Err: err}
		if s, ok := status.FromError(err); ok && err != nil {
			e.Err = fmt.Errorf("%s: %s", s.Code(), s.Message())
			switch s.Code() {
			case codes.Unavailable, codes.DeadlineExceeded:
				e.Again, e.Next = true, "is it running there, does the file with its bundle have its root, and do the clocks agree?"
			case codes.ResourceExhausted:
				e.Again = true
			case codes.PermissionDenied, codes.Unauthenticated:
				e.Next = "is the agent banned or evicted? 'spire-server agent list' shows it; a new join token in the file makes it attest again"
			}
		}
	}
	return &issuer.Error{Issuer: i.Name(), What: what, Err: e.Err, Next: e.Next, Again: e.Again}
}

// Sign implements issuer.Issuer.
func (i *Issuer) Sign(ctx context.Context, r issuer.Request) (*ca.Issued, error) {
	what := "sign " + r.ID.String()
	if _, err := r.Parse(); err != nil {
		return nil, i.wrong(what, err)
	}
	var issued *ca.Issued
	err := i.asAgent(ctx, func(c *grpc.ClientConn) error {
		e, err := i.entry(ctx, c, r.ID)
		if err != nil {
			return err
		}
		issued, err = sign(ctx, c, e, r.CSR)
		if status.Code(err) == codes.NotFound { // it was taken out, or is another one by now
			i.forget()
		}
		return err
	})
	if err != nil {
		return nil, i.wrong(what, err)
	}
	return issued, nil
}

func sign(ctx context.Context, c *grpc.ClientConn, e entry, csr []byte) (*ca.Issued, error) {
	answer, err := svidv1.NewSVIDClient(c).BatchNewX509SVID(ctx, &svidv1.BatchNewX509SVIDRequest{Params: []*svidv1.NewX509SVIDParams{{EntryId: e.id, Csr: csr}}})
	if err != nil {
		return nil, err
	}
	if len(answer.GetResults()) != 1 {
		return nil, errors.New("it has answered another number of certificates than it was asked for")
	}
	one := answer.GetResults()[0]
	if code := codes.Code(one.GetStatus().GetCode()); code != codes.OK {
		return nil, status.Error(code, one.GetStatus().GetMessage())
	}
	chain := one.GetSvid().GetCertChain()
	if len(chain) == 0 {
		return nil, errors.New("it has answered no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("the certificate in its answer: %w", err)
	}
	return &ca.Issued{Chain: chain, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}, nil
}

// entry answers the registration entry of an identity.
func (i *Issuer) entry(ctx context.Context, c *grpc.ClientConn, id spiffe.ID) (entry, error) {
	i.mu.Lock()
	e, ok := i.entries[id]
	old := time.Since(i.seen) > entriesFor
	i.mu.Unlock()
	if !ok || old {
		list, err := authorized(ctx, c)
		if err != nil {
			return e, err
		}
		i.mu.Lock()
		i.entries, i.seen = list, time.Now()
		e, ok = list[id]
		i.mu.Unlock()
	}
	switch {
	case !ok:
		return e, &issuer.Error{Err: errors.New("it has no registration entry for that below this agent"),
			Next: fmt.Sprintf("spire-server entry create -parentID %s -spiffeID %s -selector tulle:sa:%s/%s", i.parent(), id, id.Namespace, id.ServiceAccount)}
	case e.names > 0:
		return e, &issuer.Error{Err: errors.New("its registration entry adds DNS names"), Next: "make the entry without -dns"}
	}
	return e, nil
}

func (i *Issuer) forget() {
	i.mu.Lock()
	i.entries = nil
	i.mu.Unlock()
}

// parent answers whose entries this agent's are.
func (i *Issuer) parent() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.agent == nil {
		return "AGENT"
	}
	return i.agent.id
}

// authorized answers the entries below this agent, by identity. Those of other forms are none of ours.
func authorized(ctx context.Context, c *grpc.ClientConn) (map[spiffe.ID]entry, error) {
	answer, err := entryv1.NewEntryClient(c).GetAuthorizedEntries(ctx, &entryv1.GetAuthorizedEntriesRequest{OutputMask: &types.EntryMask{SpiffeId: true, DnsNames: true}})
	if err != nil {
		return nil, err
	}
	out := map[spiffe.ID]entry{}
	for _, e := range answer.GetEntries() {
		id, err := spiffe.ParseID("spiffe://" + e.GetSpiffeId().GetTrustDomain() + e.GetSpiffeId().GetPath())
		if err != nil {
			continue
		}
		if have, twice := out[id]; (!twice || have.names > 0) && len(out) < maxEntries {
			out[id] = entry{e.GetId(), len(e.GetDnsNames())}
		}
	}
	return out, nil
}

// Roots implements issuer.Issuer.
func (i *Issuer) Roots(ctx context.Context) ([]*x509.Certificate, error) {
	const what = "read its roots"
	var list []*x509.Certificate
	err := i.asAgent(ctx, func(c *grpc.ClientConn) error {
		b, err := bundlev1.NewBundleClient(c).GetBundle(ctx, &bundlev1.GetBundleRequest{OutputMask: &types.BundleMask{X509Authorities: true}})
		if err != nil {
			return err
		}
		if b.GetTrustDomain() != i.cfg.TrustDomain {
			return &issuer.Error{Err: fmt.Errorf("it is of trust domain %s, the mesh of %s", b.GetTrustDomain(), i.cfg.TrustDomain), Next: "start with --trust-domain " + b.GetTrustDomain()}
		}
		for _, a := range b.GetX509Authorities() {
			if a.GetTainted() {
				continue // it is about to be taken out, since its key is no secret any more
			}
			root, err := x509.ParseCertificate(a.GetAsn1())
			if err != nil {
				return fmt.Errorf("a root in its bundle: %w", err)
			}
			list = append(list, root)
		}
		list, err = issuer.RootsOf(list)
		return err
	})
	if err != nil {
		return nil, i.wrong(what, err)
	}
	i.mu.Lock()
	i.roots = list
	i.mu.Unlock()
	return list, nil
}

// Warnings implements issuer.Warner.
func (i *Issuer) Warnings(now time.Time) []ca.Warning {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.agent == nil {
		return nil
	}
	left := i.agent.ends().Sub(now)
	if left > i.agent.life()*3/10 {
		return nil
	}
	message := fmt.Sprintf("%s could not be renewed; without it nothing is signed: have the server back, or put a new join token into %s", i.agent.id, i.cfg.Token)
	return []ca.Warning{{What: "the control plane's identity as an agent of SPIRE", Message: message, Left: max(0, left)}}
}

// token reads the join token.
func (i *Issuer) token() (string, error) {
	if i.cfg.Token == "" {
		return "", errors.New("there is no join token to attest with")
	}
	text, err := issuer.ReadSecret(i.cfg.Token)
	return strings.TrimSpace(string(text)), err
}
