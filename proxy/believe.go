package proxy

import (
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// believer is an identity that can be told whom the mesh believes, and knows the mesh's time; *attest.Identity is one.
type believer interface {
	Believe(t *svid.Trust)
	Clock() *svid.Clock
	Failing() (*svid.Failure, uint64)
}

// believe takes whom the mesh believes from now on: handshakes go by it at once, and what is open with somebody who was
// revoked ends. It is told before the control plane gets the acknowledgement. What cannot be understood is refused as a whole: the
// control plane hears so, and what was known stays in force.
func (p *Proxy) believe(m *model.Trust) error {
	b, ok := p.cfg.Identity.(believer)
	if !ok {
		return nil
	}
	t, err := svid.NewTrust(p.cfg.Identity.Current().ID.TrustDomain, m)
	if err != nil {
		return err
	}
	b.Believe(t)
	for _, w := range p.workers {
		w.loop.Post(func() {
			if n, why := w.open.Review(w.loop); n > 0 {
				p.cfg.Log.Warn("connections ended: who is at their other end was revoked", "connections", n, "error", why)
			}
		})
	}
	return nil
}

// refuses answers why a connection to or from another proxy may not be open, a *failure.Failure: mtls.Open.Refuses.
func (p *Proxy) refuses(c *mtls.Conn) error {
	t := p.cfg.Identity.Current().Trust
	if t == nil {
		return nil
	}
	id, chain := c.Peer()
	if err := t.Refuses(id, chain); err != nil {
		return &failure.Failure{Reason: failure.Revoked, Cause: err}
	}
	err := p.authorize("", id)
	if t.Roots(id.TrustDomain) == nil {
		err = fmt.Errorf("%s is not of a trust domain that the mesh believes any more", id)
	}
	if err != nil {
		return &failure.Failure{Reason: failure.PeerIdentity, Cause: err}
	}
	return nil
}

// authorize answers why who has proven id may not connect at all: mtls.ServerOptions.Authorize. Of other meshes only those may whom a
// policy of the workload names; what they may then do is decided as for everybody.
func (p *Proxy) authorize(_ string, id spiffe.ID) error {
	t := p.cfg.Identity.Current().Trust
	if t == nil || !t.Federated(id.TrustDomain) || p.policies.Rules().Admits(id.TrustDomain) {
		return nil
	}
	return fmt.Errorf("%s is another mesh's, and no policy that allows names it or its trust domain", id)
}

// known answers whom the mesh knows a caller as: listener.Config.Known.
func (p *Proxy) known(id spiffe.ID) (spiffe.ID, bool) {
	t := p.cfg.Identity.Current().Trust
	if t == nil {
		return id, false
	}
	id = t.Canonical(id)
	return id, t.Federated(id.TrustDomain)
}

// openOf answers the connections to and from other proxies that are open on a loop.
func (p *Proxy) openOf(l loop.Loop) *mtls.Open {
	for _, w := range p.workers {
		if w.loop == l {
			return &w.open
		}
	}
	return nil
}

// Clocks that are apart by more than clockAlarm are told of, every clockAgain.
const (
	clockAlarm = 5 * time.Second
	clockAgain = 10 * time.Minute
)

// show tells the control plane what the workload proves itself with, when that has changed, and the log when this machine's
// clock is wrong. It is called once a second by one goroutine, which keeps said.
func (p *Proxy) show(said *time.Time, now time.Time) {
	failing, ahead := "", time.Duration(0)
	if b, ok := p.cfg.Identity.(believer); ok {
		if f, _ := b.Failing(); f != nil {
			failing = f.Err.Error()
		}
		ahead, _ = b.Clock().Ahead()
	}
	s := p.cfg.Identity.Current()
	p.client.Shown(s.Certificate.Certificate, failing)
	if ahead.Abs() > clockAlarm && now.Sub(*said) >= clockAgain {
		*said = now
		p.cfg.Log.Warn("this machine's clock is not the control plane's, by which certificates are judged here: set it, other programs go by it",
			"ahead", ahead.Round(time.Millisecond).String())
	}
}

// proof tells of the identity: observe.Config.Identity.
func (p *Proxy) proof() observe.Identity {
	s := p.cfg.Identity.Current()
	o := observe.Identity{Left: s.NotAfter.Sub(identity{p.cfg.Identity}.Now())}
	if s.Trust != nil {
		o.Stage = s.Trust.Model.Stage
	}
	if b, ok := p.cfg.Identity.(believer); ok {
		_, o.Failed = b.Failing()
		o.ClockAhead, _ = b.Clock().Ahead()
	}
	return o
}
