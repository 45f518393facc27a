// Package attest is how a process proves who it is and gets its identity from the control plane: by the
// credentials of its unix socket on the same machine, or with a join token from another. The private key is
// made here and never leaves the process, but to the one that replaces it (Hold, Resume), from memory to memory.
// Later identities are asked for with the one in force, unless that was revoked: then as the first one was. Nothing here writes a file. Start reading at Start.
package attest

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/identity/attest/attestpb"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// Config says who asks, and how it proves that: Socket, or Token with Address.
type Config struct {
	Namespace, ServiceAccount string

	Socket string // the control plane's control.sock, on this machine

	Token   string // from tulle token
	Address string // host:port of the control plane's gRPC port; needed with Token

	// Service is what the workload wants to serve; "": the one named as its service account.
	Service string

	Clock *svid.Clock // is told the control plane's time; nil: one of its own
	Log   *slog.Logger
}

// Identity is a Source with what else was granted.
type Identity struct {
	*svid.Rotator
	Address string    // host:port of the control plane's gRPC port
	Server  spiffe.ID // that the control plane proves there

	clock *svid.Clock
	asked asked
	log   *slog.Logger

	mu     sync.Mutex
	others []*svid.Rotator // that Another has made
}

// asked is a request that has not been answered yet. It is shown again: whoever signs by hand finds the same one.
type asked struct {
	key *ecdsa.PrivateKey
	csr []byte
	id  spiffe.ID // that it carries; zero: none
	at  time.Time
}

// askedFor is how long a request is shown again.
const askedFor = 24 * time.Hour

func clockOf(cfg Config) *svid.Clock {
	if cfg.Clock == nil {
		return &svid.Clock{}
	}
	return cfg.Clock
}

// Start attests, bounded by ctx, and keeps the identity renewed until Close.
func Start(ctx context.Context, cfg Config) (*Identity, error) {
	if _, err := kind(cfg); err != nil {
		return nil, err
	}
	id := &Identity{clock: clockOf(cfg), log: cfg.Log}
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		var err error
		id.Rotator, err = svid.NewRotator(ctx, svid.Config{Fetch: id.next(cfg), Clock: id.clock, Log: cfg.Log})
		if err == nil {
			return id, nil
		}
		if !errors.Is(err, errLater) {
			return nil, err
		}
		t := time.NewTimer(time.Duration(float64(retry) * (0.7 + 0.6*rand.Float64())))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, err
		case <-t.C:
		}
	}
}

// errLater is in the error of a request that may be granted later, as it is: whoever signs has not done so yet.
var errLater = errors.New("no identity yet")

// Times between two tries of Start.
const firstRetry, lastRetry = 200 * time.Millisecond, 2 * time.Second

// next obtains the first identity, and later ones.
func (id *Identity) next(cfg Config) svid.Fetch {
	return func(ctx context.Context, now *svid.SVID) (*svid.SVID, error) {
		if now == nil {
			return id.attest(ctx, cfg)
		}
		why := now.Revoked() // what is revoked is not shown
		if why == nil {
			next, err := id.renew(ctx, now)
			if err == nil || cfg.Socket == "" && status.Code(err) != codes.Unauthenticated {
				return next, err
			}
			why = err // also when now has ended, after a long sleep
		}
		again := &Identity{clock: id.clock, asked: id.asked}
		next, err := again.attest(ctx, cfg)
		id.asked = again.asked
		switch {
		case err == nil:
			id.asked = asked{}
			return next, nil
		case cfg.Socket == "" && errors.Is(err, ErrRefused):
			return nil, fmt.Errorf("%w; the join token does not let the workload in again (%w): make another with 'tulle token --service %s', and start the workload with it",
				why, err, cmp.Or(cfg.Service, cfg.ServiceAccount))
		}
		return nil, fmt.Errorf("%w; and from anew: %w", why, err)
	}
}

func kind(cfg Config) (local bool, err error) {
	switch {
	case cfg.Namespace == "" || cfg.ServiceAccount == "":
		return false, errors.New("attest: no namespace or service account")
	case cfg.Socket != "":
		return true, nil
	case cfg.Token == "" || cfg.Address == "":
		return false, errors.New("attest: neither the control plane's socket nor a join token with its address")
	}
	return false, nil
}

// ErrRefused is in the errors of Start when trying again is no use: the token is none, or the control plane says no.
var ErrRefused = errors.New("refused")

// attest proves who we are for the first time.
func (id *Identity) attest(ctx context.Context, cfg Config) (*svid.SVID, error) {
	local, err := kind(cfg)
	if err != nil {
		return nil, err
	}
	var creds credentials.TransportCredentials
	network, address := "tcp", cfg.Address
	if local {
		creds, network, address = insecure.NewCredentials(), "unix", cfg.Socket
	} else if creds, err = pinned(cfg.Token, id.clock); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	var s *svid.SVID
	err = id.ask(ctx, network, address, creds, func(c attestpb.IdentityClient, csr []byte) (*attestpb.Grant, error) {
		return c.Attest(ctx, &attestpb.AttestRequest{Csr: csr, Namespace: cfg.Namespace, ServiceAccount: cfg.ServiceAccount, Token: cfg.Token, Service: cfg.Service})
	}, &s)
	if err != nil {
		switch status.Code(err) {
		case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument:
			err = fmt.Errorf("%w: %s", ErrRefused, status.Convert(err).Message())
		case codes.Aborted:
			err = fmt.Errorf("%w: %s", errLater, status.Convert(err).Message())
		case codes.Unavailable, codes.DeadlineExceeded:
			err = fmt.Errorf("not reached: %s: is 'tulle up' running there, and does it listen on this address?", status.Convert(err).Message())
		}
		return nil, fmt.Errorf("attesting to the control plane at %s: %w", address, err)
	}
	if cfg.Address != "" {
		id.Address = cfg.Address // as it is known here, not there
	}
	return s, nil
}

// renew proves who we are by the identity in force.
func (id *Identity) renew(ctx context.Context, now *svid.SVID) (*svid.SVID, error) {
	creds := credentials.NewTLS(svid.ClientConfig(fixed{now, id.clock}, id.Server))
	var s *svid.SVID
	if name := now.Trust.Canonical(now.ID); id.asked.id != name { // the mesh's trust domain may be another one by now
		id.asked = asked{id: name}
	}
	renewing := &Identity{clock: id.clock, asked: id.asked}
	err := renewing.ask(ctx, "tcp", id.Address, creds, func(c attestpb.IdentityClient, csr []byte) (*attestpb.Grant, error) {
		return c.Renew(ctx, &attestpb.RenewRequest{Csr: csr})
	}, &s)
	id.asked = renewing.asked
	if err != nil {
		return nil, fmt.Errorf("renewing the identity at %s: %w", id.Address, err)
	}
	return s, nil
}

// fixed shows one identity.
type fixed struct {
	svid  *svid.SVID
	clock *svid.Clock
}

func (f fixed) Current() *svid.SVID { return f.svid }
func (f fixed) Now() time.Time      { return f.clock.Now() }

// ask makes a key, has it signed and puts the identity together. The connection is for this alone.
func (id *Identity) ask(ctx context.Context, network, address string, creds credentials.TransportCredentials,
	call func(attestpb.IdentityClient, []byte) (*attestpb.Grant, error), to **svid.SVID) error {
	if err := id.request(); err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds), grpc.WithAuthority("tulle"), grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, a)
		}),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
	if err != nil {
		return err
	}
	defer conn.Close()
	begin := time.Now()
	g, err := call(attestpb.NewIdentityClient(conn), id.asked.csr)
	if name := wanted(err); !name.IsZero() && id.asked.id.IsZero() {
		id.asked = asked{id: name}
		if err := id.request(); err != nil {
			return err
		}
		begin = time.Now()
		g, err = call(attestpb.NewIdentityClient(conn), id.asked.csr)
	}
	if err != nil {
		return err
	}
	key := id.asked.key
	id.asked = asked{id: id.asked.id} // the next one has a new key
	if id.Server, err = spiffe.ParseID(g.GetServer()); err != nil {
		return err
	}
	id.Address = g.GetAddress()
	s, err := svid.New(key, g.GetChain(), g.GetRoots())
	if err != nil {
		return err
	}
	if g.GetNow() > 0 { // a control plane of the version before does not say it
		s.Made = time.UnixMilli(g.GetNow())
		id.clock.Set(s.Made.Add(time.Since(begin) / 2))
	}
	if !id.clock.Now().Before(s.NotAfter) {
		return fmt.Errorf("the identity granted has ended at %s already: check the clocks", s.NotAfter)
	}
	*to = s
	return nil
}

// request makes a key and a request for it, unless there is one that was not answered.
func (id *Identity) request() error {
	if id.asked.key != nil && time.Since(id.asked.at) < askedFor {
		return nil
	}
	key, err := svid.NewKey()
	if err != nil {
		return err
	}
	csr, err := svid.Request(key, id.asked.id)
	if err == nil {
		id.asked.key, id.asked.csr, id.asked.at = key, csr, time.Now()
	}
	return err
}

// wanted answers the name that the control plane wants in the request; zero: it does not say.
func wanted(err error) (id spiffe.ID) {
	if status.Code(err) != codes.FailedPrecondition {
		return id
	}
	for _, d := range status.Convert(err).Details() {
		if s, ok := d.(*wrapperspb.StringValue); ok {
			id, _ = spiffe.ParseID(s.GetValue())
		}
	}
	return id
}
