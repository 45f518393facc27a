package spire

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
)

// agent is an identity as an agent.
type agent struct {
	id   string // spiffe://td/spire/agent/join_token/...
	svid *x509svid.SVID
}

func (a *agent) ends() time.Time     { return a.svid.Certificates[0].NotAfter }
func (a *agent) life() time.Duration { return a.ends().Sub(a.svid.Certificates[0].NotBefore) }

// old reports whether half of its life is over.
func (a *agent) old(now time.Time) bool { return a.ends().Sub(now) < a.life()/2 }

// agentFile is where it is kept: key and chain in one file, so that both change at once.
func agentFile(cfg Config) string { return filepath.Join(cfg.Dir, "spire-agent.pem") }

func loadAgent(cfg Config) (*agent, error) {
	text, err := ca.ReadSecret(agentFile(cfg))
	if err != nil {
		return nil, err
	}
	s, err := x509svid.Parse(text, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", agentFile(cfg), err)
	}
	return &agent{id: s.ID.String(), svid: s}, nil
}

// save replaces the file in one step.
func (a *agent) save(cfg Config) error {
	chain, key, err := a.svid.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(cfg.Dir, "spire-agent-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(chain, key...))
	if err == nil {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), agentFile(cfg))
}

// asAgent calls do with a connection on which the server knows the agent, for this call alone: a connection of before a renewal is
// refused by the server.
func (i *Issuer) asAgent(ctx context.Context, do func(*grpc.ClientConn) error) error {
	a, err := i.current(ctx)
	if err != nil {
		return err
	}
	c, err := i.dial(a)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// current answers the agent's identity, attested or renewed if need be. A renewal that fails does no harm while the identity lasts.
func (i *Issuer) current(ctx context.Context) (*agent, error) {
	i.attesting.Lock()
	defer i.attesting.Unlock()
	i.mu.Lock()
	a := i.agent
	i.mu.Unlock()
	now := time.Now()
	ended := a == nil || !now.Before(a.ends())
	if !ended && !a.old(now) {
		return a, nil
	}
	var next *agent
	var err error
	if ended {
		next, err = i.attest(ctx)
	} else if next, err = i.renew(ctx, a); err != nil {
		i.cfg.Log.Warn("the control plane's identity as an agent of SPIRE is not renewed; the one before is used", "agent", a.id, "left", a.ends().Sub(now).Round(time.Second).String(), "error", err)
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	if err := next.save(i.cfg); err != nil {
		i.cfg.Log.Error("the control plane's identity as an agent of SPIRE cannot be kept: after a restart it needs a new join token", "error", err)
	}
	i.mu.Lock()
	i.agent, i.entries = next, nil
	i.mu.Unlock()
	return next, nil
}

// attest becomes an agent by a join token.
func (i *Issuer) attest(ctx context.Context) (*agent, error) {
	const next = "make a join token with 'spire-server token generate -spiffeID spiffe://TRUST-DOMAIN/tulle' and write it into the file"
	token, err := i.token()
	if err != nil {
		return nil, &issuer.Error{Err: err, Next: next}
	}
	c, err := i.dial(nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return made(func(csr []byte) (*types.X509SVID, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the stream
		stream, err := agentv1.NewAgentClient(c).AttestAgent(ctx)
		if err != nil {
			return nil, err
		}
		err = stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
			Data: &types.AttestationData{Type: "join_token", Payload: []byte(token)}, Params: &agentv1.AgentX509SVIDParams{Csr: csr}}}})
		if err != nil {
			return nil, err
		}
		answer, err := stream.Recv()
		if c := status.Code(err); c == codes.InvalidArgument || c == codes.PermissionDenied || c == codes.NotFound {
			return nil, &issuer.Error{Err: fmt.Errorf("the join token is refused: %s", status.Convert(err).Message()), Next: next}
		}
		if err != nil {
			return nil, err
		}
		return answer.GetResult().GetSvid(), nil
	})
}

// renew gets the agent another certificate.
func (i *Issuer) renew(ctx context.Context, a *agent) (*agent, error) {
	c, err := i.dial(a)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return made(func(csr []byte) (*types.X509SVID, error) {
		answer, err := agentv1.NewAgentClient(c).RenewAgent(ctx, &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: csr}})
		return answer.GetSvid(), err
	})
}

// made makes a key and has a certificate of an agent signed for it.
func made(ask func(csr []byte) (*types.X509SVID, error)) (*agent, error) {
	key, err := svid.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := svid.Request(key, spiffe.ID{})
	if err != nil {
		return nil, err
	}
	signed, err := ask(csr)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	s, err := x509svid.ParseRaw(bytes.Join(signed.GetCertChain(), nil), der)
	if err != nil {
		return nil, fmt.Errorf("the agent's certificate: %w", err)
	}
	return &agent{id: s.ID.String(), svid: s}, nil
}

// dial makes a connection to the server, which must prove to be it; a, if not nil, is what we prove.
func (i *Issuer) dial(a *agent) (*grpc.ClientConn, error) {
	td, err := spiffeid.TrustDomainFromString(i.cfg.TrustDomain)
	if err != nil {
		return nil, err
	}
	server, err := spiffeid.FromPath(td, "/spire/server")
	if err != nil {
		return nil, err
	}
	bundle, err := i.bundle(td)
	if err != nil {
		return nil, err
	}
	var cfg *tls.Config
	if a == nil {
		cfg = tlsconfig.TLSClientConfig(bundle, tlsconfig.AuthorizeID(server))
	} else {
		cfg = tlsconfig.MTLSClientConfig(a.svid, bundle, tlsconfig.AuthorizeID(server))
	}
	return grpc.NewClient("passthrough:///"+i.cfg.Address, grpc.WithTransportCredentials(credentials.NewTLS(cfg)), grpc.WithDisableServiceConfig())
}

// bundle answers the roots that the server is verified with: those of the file, and those that it has named since.
func (i *Issuer) bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	roots, err := issuer.ReadRoots(i.cfg.Bundle)
	i.mu.Lock()
	roots = append(roots, i.roots...)
	i.mu.Unlock()
	if len(roots) == 0 {
		return nil, errors.Join(errors.New("no root of it is known"), err)
	}
	return x509bundle.FromX509Authorities(td, roots), nil
}
