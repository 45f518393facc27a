package control

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/tulle-mesh/tulle/control/attest"
	"github.com/tulle-mesh/tulle/control/federate"
	"github.com/tulle-mesh/tulle/control/push"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/control/trust"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/resource"
	"github.com/tulle-mesh/tulle/xds/server"
)

// believe starts what says whom the mesh believes. What changes there goes to the proxies, to our own handshakes, and to the
// connections that are open here.
func (p *Plane) believe(ctx context.Context, reg *registry.Registry, out *push.Push) error {
	own, err := attest.Own(ctx, p.issuing, p.log)
	if err != nil {
		return err
	}
	p.onClose(own.Close)
	if err := p.serveBundle(own); err != nil {
		return err
	}
	p.open = server.NewConnections(own, func(id spiffe.ID, chain []*x509.Certificate) error { return p.trust.Refuses(id, chain) })
	p.open.Bound(p.cfg.ConnectionsPerIdentity)
	p.trust, err = trust.Start(ctx, trust.Config{CA: p.ca, Store: p.store, Log: p.log,
		Behind: func() (behind, connected []string) { return out.Unheld(resource.TypeTrust, resource.TrustName) },
		Own: func() (*svid.SVID, error) {
			if f, _ := own.Failing(); f != nil {
				return own.Current(), f.Err
			}
			return own.Current(), nil
		},
		Others: p.others,
		Announced: func() (list []string) {
			for _, w := range reg.Workloads() {
				list = append(list, w.Key())
			}
			return list
		},
		Changed: func(t *svid.Trust) {
			p.believed.Store(t.Model)
			own.Believe(t)
			out.Touch(resource.TypeTrust, resource.TrustName)
			if n := p.open.Review(); n > 0 {
				p.log.Warn("connections of proxies ended: they were revoked", "connections", n)
			}
		}})
	if err != nil {
		return err
	}
	p.onClose(p.trust.Close)
	p.onClose(p.federated.Close) // before the Keeper that it tells
	p.federated.Changed(p.trust.Again)
	return nil
}

// others answers what the mesh believes besides its own trust domain: trust.Config.Others.
func (p *Plane) others() (aliases []string, federated []trust.Federated) {
	for _, b := range p.federated.Bundles() {
		federated = append(federated, trust.Federated{TrustDomain: b.TrustDomain, Roots: b.Roots, From: b.From, Fetched: b.Fetched,
			Sequence: b.Sequence, Failing: b.Failing, Since: b.Since})
	}
	return p.federated.Aliases(p.ca.TrustDomain()), federated
}

// Bounds of the bundle endpoint: connections at once, and how often other meshes are to ask, at most and at least.
const (
	bundleConnections       = 64
	bundleOften, bundleRare = time.Second, 5 * time.Minute
)

// serveBundle serves the mesh's own bundle to other meshes, if that was asked for. What they do not ask for in time they believe by
// the cross-signed root.
func (p *Plane) serveBundle(own svid.Source) error {
	if p.cfg.BundleListen == "" {
		return nil
	}
	l, err := p.listen(p.cfg.BundleListen, "--bundle-listen")
	if err != nil {
		return err
	}
	s := federate.Endpoint(p.believed.Load, own, min(max(p.ca.Leaf()/4, bundleOften), bundleRare))
	s.ErrorLog = slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)
	p.bundles = l
	p.serving.Go(func() {
		if err := s.ServeTLS(netutil.LimitListener(l, bundleConnections), "", ""); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("the bundle endpoint ended", "address", l.Addr().String(), "error", err)
		}
	})
	p.onClose(func() { s.Close() })
	return nil
}

// trustModel answers whom the mesh believes: snapshot.Snapshot.Trust. Nobody asks before believe has returned.
func (p *Plane) trustModel() *model.Trust { return p.trust.Model() }

// shown takes what a proxy proves itself with: push.Sessions.Shown.
func (p *Plane) shown(w registry.Workload, proof server.Proof) {
	p.trust.Shown(w.Key(), w.Starts, w.Identity, proof.Chain, proof.Wall, proof.Failing)
}

// left takes that a proxy is gone: push.Sessions.Left.
func (p *Plane) left(w registry.Workload, said bool) {
	p.trust.Left(w.Key(), w.Starts, said)
	p.captures.left(w)
}

// servesWait bounds the question who may serve what.
const servesWait = 5 * time.Second

// serves answers why a service account may not serve a service: push.Sessions.Serves.
func (p *Plane) serves(tokens *token.Tokens) func(namespace, account, service string) error {
	return func(namespace, account, service string) error {
		ctx, cancel := context.WithTimeout(context.Background(), servesWait)
		defer cancel()
		return tokens.Serves(ctx, namespace, account, service)
	}
}
