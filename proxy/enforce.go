package proxy

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz/cel"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/xds/resource"
)

// What the workload's policies are, and that they are in force (docs/design/security.md).

// policiesWait is how long a proxy waits for its policies before it listens; without them it lets nobody in.
const policiesWait = 5 * time.Second

// mostKept is how much the link to the supervisor carries of policies, in bytes.
const mostKept = 512 << 10

// enforced begins to follow what the workload's service enforces, with what the proxy before this one knew.
func (p *Proxy) enforced() {
	p.moved, p.rekeyed = make(chan struct{}, 1), make(chan struct{}, 1)
	p.askFor()
	p.policies = policy.New(policy.Config{Labels: model.LabelsOf(p.cfg.Bootstrap.Labels), Log: p.cfg.Log, Expressions: cel.Compile})
	if kept := p.cfg.Bootstrap.Security; kept != nil {
		s, err := resource.DecodeSecurity(&anypb.Any{TypeUrl: resource.TypeSecurity, Value: kept})
		if err == nil {
			err = p.putInForce(s)
		}
		if err != nil {
			p.cfg.Log.Warn("the policies that the proxy before this one has left cannot be understood; nobody is let in until the control plane has said them", "error", err)
		}
	}
}

// enforce puts what the service enforces in force, off the loops; what is open and not allowed any more ends. An error means
// that everything stays as it was.
func (p *Proxy) enforce(s *model.Security) error {
	if err := p.putInForce(s); err != nil {
		p.cfg.Log.Error("policies refused, those before stay in force", "error", err)
		return err
	}
	select {
	case p.moved <- struct{}{}:
	default: // it has not looked yet
	}
	for _, w := range p.workers {
		w.loop.Post(func() {
			w.reviewPolicies()
			w.listener.Review()
			w.pool.Retire(p.outside.useless)
			w.open.Review(w.loop) // identities of other meshes that no policy names any more
		})
	}
	p.keepPolicies(s)
	return nil
}

// clockSet is within what time a clock that was set is noticed.
const clockSet = 15 * time.Second

// followTime asks again about what is open when a rule begins or ends to hold because of the time, by the clock that policies are asked
// with, and when an issuer has other keys. When a token ends is followed by its exchange.
func (p *Proxy) followTime(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for looked := time.Now().Unix(); ; {
		next := p.moves(looked)
		if next != 0 {
			timer.Reset(min(max(time.Until(time.Unix(next, 0)), 0), clockSet))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-p.moved:
			looked = time.Now().Unix() - 1 // what began or ended meanwhile is not missed
			continue
		case <-p.rekeyed:
			p.reviewAll()
			continue
		case <-timer.C:
		}
		now := time.Now().Unix()
		if now < next && now >= looked {
			continue // a clock that was set is the only thing to look for
		}
		p.reviewAll()
		looked = now
	}
}

// moves answers when, after now, time alone may change what policies say about who comes in, or about what leaves the mesh; 0: never.
func (p *Proxy) moves(now int64) int64 {
	in, out := p.policies.Rules().Moves(now), int64(0)
	if t := p.outside.table.Load(); t != nil {
		out = t.Moves(now)
	}
	if in == 0 || out != 0 && out < in {
		return out
	}
	return in
}

// reviewAll has every loop do reviewPolicies.
func (p *Proxy) reviewAll() {
	for _, w := range p.workers {
		w.loop.Post(w.reviewPolicies)
	}
}

// reviewPolicies asks again about everything on this loop that policies have let in. The loop calls it.
func (w *worker) reviewPolicies() {
	w.exchange.Review(w.proxy.policies)
	w.relays.Review()
}

// keepPolicies gives the supervisor what the proxy after this one begins with.
func (p *Proxy) keepPolicies(s *model.Security) {
	if p.cfg.KeepSecurity == nil {
		return
	}
	m, err := resource.EncodeSecurity(s)
	var b []byte
	if err == nil {
		b, err = proto.Marshal(m)
	}
	if err == nil && len(b) > mostKept {
		err = fmt.Errorf("they are %d bytes, more than %d", len(b), mostKept)
	}
	if err == nil {
		err = p.cfg.KeepSecurity(b)
	}
	if err != nil {
		p.cfg.Log.Warn("a proxy that replaces this one will have to wait for its policies", "error", err)
	}
}

// awaitPolicies returns when the workload's policies are in force. Without them the proxy listens and lets nobody in.
func (p *Proxy) awaitPolicies(ctx context.Context) error {
	for end := time.Now().Add(policiesWait); !p.policies.Known(); {
		if time.Now().After(end) {
			p.cfg.Log.Warn("the control plane has not said which policies the workload has: nobody is let in until it does",
				"control", p.cfg.Control, "last_error", fmt.Sprint(p.client.State().LastError))
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(waitEvery / 20):
		}
	}
	return nil
}
