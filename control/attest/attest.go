// Package attest gives identities to whoever proves who he is: processes of the same user on this machine by
// the credentials of a unix socket, others by a join token, and everyone who has an identity by that. It signs
// nothing itself. Safe for concurrent use. Start reading at Config.
package attest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/external"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/identity/attest/attestpb"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// TTL of the identities that are given, unless configured.
const TTL = 24 * time.Hour

// Authority signs; *external.Authority is one, Local makes one of a *ca.CA.
type Authority interface {
	TrustDomain() string
	RootsDER() [][]byte
	// Pinnable answers the roots of now and of before, with what leads from those to these: what a join token may pin.
	Pinnable() [][]byte
	// Admit says what is wrong with a request before anything is spent on it: external.ErrNameless where it has to carry id.
	Admit(csr []byte, id spiffe.ID) error
	// Sign waits for ctx at most. It answers external.ErrNotNow where it may go well later.
	Sign(ctx context.Context, csr []byte, id spiffe.ID, ttl time.Duration, now time.Time) (*ca.Issued, error)
	// KeepOwn keeps the control plane's own certificate over a restart, because it may not be able to sign then; Own answers it as long as it
	// is good for id, nil otherwise.
	KeepOwn(key *ecdsa.PrivateKey, chain [][]byte) error
	Own(id spiffe.ID, now time.Time) (*ecdsa.PrivateKey, [][]byte)
}

// Local is a mesh's own authority, which never waits.
type Local struct{ *ca.CA }

// KeepOwn implements Authority: a new certificate can be had at any time, so no key has to be kept.
func (l Local) KeepOwn(*ecdsa.PrivateKey, [][]byte) error { return nil }

// Own implements Authority.
func (l Local) Own(spiffe.ID, time.Time) (*ecdsa.PrivateKey, [][]byte) { return nil, nil }

// Admit implements Authority: Sign says it.
func (l Local) Admit([]byte, spiffe.ID) error { return nil }

// Sign implements Authority.
func (l Local) Sign(_ context.Context, csr []byte, id spiffe.ID, ttl time.Duration, now time.Time) (*ca.Issued, error) {
	return l.CA.Sign(csr, id, ttl, now)
}

// Tokens redeems join tokens; *token.Tokens is one.
type Tokens interface {
	Redeem(ctx context.Context, text, namespace, serviceAccount, service string, now time.Time) error
	// Return gives a use back that nothing came of.
	Return(ctx context.Context, text string) error
	// Bind lets a service account serve a service.
	Bind(ctx context.Context, namespace, serviceAccount, service string) error
}

// Config of the service; all but Log are needed.
type Config struct {
	Authority Authority
	Tokens    Tokens
	Address   string        // host:port of the gRPC port, as local processes reach it
	Server    spiffe.ID     // of the control plane
	TTL       time.Duration // of the identities that are given; 0: TTL
	// Refuses says who gets no identity although he has proven who he is; nil: nobody.
	Refuses func(id spiffe.ID) error
	Log     *slog.Logger
}

// Service gives identities.
type Service struct {
	attestpb.UnimplementedIdentityServer
	cfg Config
}

// New makes the service.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg}
}

// Register adds the service to the server of the gRPC port (server.Options).
func (s *Service) Register(g grpc.ServiceRegistrar) { attestpb.RegisterIdentityServer(g, s) }

// LocalServer makes the server for the unix socket. Serve it with a *net.UnixListener; the caller stops it.
func (s *Service) LocalServer() *grpc.Server {
	g := grpc.NewServer(grpc.Creds(localCredentials{s.cfg.Log}), grpc.MaxRecvMsgSize(64<<10),
		grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10), grpc.ConnectionTimeout(5*time.Second))
	s.Register(g)
	return g
}

// ServerID is the identity of a control plane.
func ServerID(trustDomain string) spiffe.ID {
	return spiffe.ID{TrustDomain: trustDomain, Namespace: "tulle-system", ServiceAccount: "control"}
}

// Own is the control plane's own identity, signed by its own authority. Its chain ends with the root, which is
// what a join token pins. For the first one it waits for ctx where whoever signs does not answer yet.
func Own(ctx context.Context, a Authority, log *slog.Logger) (*svid.Rotator, error) {
	o := &own{a: a, id: ServerID(a.TrustDomain())}
	return svid.NewRotator(ctx, svid.Config{Log: log, Fetch: o.fetch})
}

// own obtains the control plane's own identity; one goroutine at a time.
type own struct {
	a   Authority
	id  spiffe.ID
	key *ecdsa.PrivateKey // of a request that was not answered: it is shown again
	csr []byte
}

func (o *own) fetch(ctx context.Context, now *svid.SVID) (*svid.SVID, error) {
	if now == nil {
		if key, chain := o.a.Own(o.id, time.Now()); key != nil {
			return svid.New(key, ownChain(chain, o.a), o.a.RootsDER())
		}
	}
	for {
		if err := o.request(); err != nil {
			return nil, err
		}
		made := time.Now()
		issued, err := o.a.Sign(ctx, o.csr, o.id, TTL, made)
		if now == nil && errors.Is(err, external.ErrNotNow) && issuer.Again(err) && pause(ctx) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := o.a.KeepOwn(o.key, issued.Chain); err != nil {
			return nil, err
		}
		s, err := svid.New(o.key, ownChain(issued.Chain, o.a), o.a.RootsDER())
		if err == nil {
			s.Made, o.key = made, nil
		}
		return s, err
	}
}

func (o *own) request() error {
	if o.key != nil {
		return nil
	}
	key, err := svid.NewKey()
	if err != nil {
		return err
	}
	if o.csr, err = svid.Request(key, o.id); err == nil {
		o.key = key
	}
	return err
}

// ownChain answers the chain that the control plane shows.
func ownChain(signed [][]byte, a Authority) [][]byte {
	chain := slices.Clone(signed)
	for _, der := range a.Pinnable() {
		if !slices.ContainsFunc(chain, func(c []byte) bool { return bytes.Equal(c, der) }) {
			chain = append(chain, der)
		}
	}
	return chain
}

// pause waits before the authority is asked again; it reports whether ctx lasts.
func pause(ctx context.Context) bool {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Attest implements attestpb.IdentityServer.
func (s *Service) Attest(ctx context.Context, r *attestpb.AttestRequest) (*attestpb.Grant, error) {
	id := spiffe.ID{TrustDomain: s.cfg.Authority.TrustDomain(), Namespace: r.GetNamespace(), ServiceAccount: r.GetServiceAccount()}
	if err := id.Validate(); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if id.Namespace == s.cfg.Server.Namespace {
		return nil, status.Errorf(codes.PermissionDenied, "namespace %s is the control plane's own", id.Namespace)
	}
	if err := s.admit(r.GetCsr(), id); err != nil {
		return nil, err
	}
	service := cmp.Or(r.GetService(), id.ServiceAccount)
	if local, ok := localPeer(ctx); ok {
		if err := s.cfg.Tokens.Bind(ctx, id.Namespace, id.ServiceAccount, service); err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		s.cfg.Log.Info("identity given", "id", id.String(), "by", "unix socket", "pid", local.PID, "uid", local.UID)
		return s.grant(ctx, r.GetCsr(), id)
	}
	if r.GetToken() == "" {
		return nil, status.Error(codes.Unauthenticated, "a join token is needed here: make one with 'tulle token --service NAME'")
	}
	if err := s.cfg.Tokens.Redeem(ctx, r.GetToken(), id.Namespace, id.ServiceAccount, service, time.Now()); err != nil {
		s.cfg.Log.Warn("join token refused", "id", id.String(), "service", service, "error", err)
		return nil, status.Errorf(codes.PermissionDenied, "join token for %s, to serve %s: %v", id, service, err)
	}
	if err := s.cfg.Tokens.Bind(ctx, id.Namespace, id.ServiceAccount, service); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	g, err := s.grant(ctx, r.GetCsr(), id)
	if err == nil {
		s.cfg.Log.Info("identity given", "id", id.String(), "by", "join token")
	} else if status.Code(err) == codes.Aborted {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), returnWait)
		defer cancel()
		if err := s.cfg.Tokens.Return(ctx, r.GetToken()); err != nil {
			s.cfg.Log.Warn("a use of a join token is lost, although no identity could be given", "id", id.String(), "error", err)
		}
	}
	return g, err
}

// Renew implements attestpb.IdentityServer.
func (s *Service) Renew(ctx context.Context, r *attestpb.RenewRequest) (*attestpb.Grant, error) {
	id, err := proven(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if id.Namespace == s.cfg.Server.Namespace {
		return nil, status.Errorf(codes.PermissionDenied, "namespace %s is the control plane's own", id.Namespace)
	}
	id.TrustDomain = s.cfg.Authority.TrustDomain() // the handshake has let nobody in but who is of this one or of an alias
	if err := s.admit(r.GetCsr(), id); err != nil {
		return nil, err
	}
	s.cfg.Log.Debug("identity renewed", "id", id.String())
	return s.grant(ctx, r.GetCsr(), id)
}

// returnWait bounds the giving back of a token's use.
const returnWait = 2 * time.Second

// admit looks at a request before anything is spent on it. Who has to write his name into it is told his name.
func (s *Service) admit(csr []byte, id spiffe.ID) error {
	err := s.cfg.Authority.Admit(csr, id)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, external.ErrNameless):
		return status.Error(codes.InvalidArgument, err.Error())
	}
	st := status.New(codes.FailedPrecondition, err.Error())
	if with, err := st.WithDetails(wrapperspb.String(id.String())); err == nil {
		st = with
	}
	return st.Err()
}

func (s *Service) grant(ctx context.Context, csr []byte, id spiffe.ID) (*attestpb.Grant, error) {
	if s.cfg.Refuses != nil {
		if err := s.cfg.Refuses(id); err != nil {
			s.cfg.Log.Warn("no identity given", "id", id.String(), "error", err)
			return nil, status.Error(codes.PermissionDenied, err.Error())
		}
	}
	ttl := s.cfg.TTL
	if ttl <= 0 {
		ttl = TTL
	}
	issued, err := s.cfg.Authority.Sign(ctx, csr, id, ttl, time.Now())
	if errors.Is(err, external.ErrNotNow) {
		s.cfg.Log.Warn("no identity given", "id", id.String(), "error", err)
		return nil, status.Error(codes.Aborted, err.Error())
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &attestpb.Grant{Chain: issued.Chain, Roots: s.cfg.Authority.RootsDER(), Address: s.cfg.Address, Server: s.cfg.Server.String(), Now: time.Now().UnixMilli()}, nil
}

// proven answers who is at the other end of an mTLS connection.
func proven(ctx context.Context) (spiffe.ID, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			if id := svid.PeerID(info.State); !id.IsZero() {
				return id, nil
			}
		}
	}
	return spiffe.ID{}, errors.New("a certificate of this mesh is needed; attest first")
}

var errNotUnix = fmt.Errorf("control/attest: the local server serves unix sockets only")
