package exchange

import (
	"bytes"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/token"
)

// Whether a request has the token that it needs (docs/design/security.md), before policies are asked about what is in it.

// tokenWait bounds how long a request waits for the keys of its token's issuer.
const tokenWait = 2 * time.Second

// proven is what a request's token is.
type proven struct {
	token   *token.Verified // nil: none
	waiting *keysWait       // for keys; nil: it does not
	due     loop.Timer      // how long it waits; later, when the token may have ended
}

// keysWait tells an exchange that keys may have come, unless it has ended: it may be another one by then.
type keysWait struct{ x *Exchange }

func (k *keysWait) tell() {
	if x := k.x; x != nil {
		x.proveAgain()
	}
}

// prove reports whether the request goes on. Otherwise it has been answered, or waits for keys and goes on later.
func (x *Exchange) prove() bool {
	g := x.origin.Tokens.Guard()
	if g == nil {
		return true
	}
	if g.Paths() && !x.straighten() {
		x.answer(failure.BadRequest)
		return false
	}
	return x.proves(g, true)
}

func (x *Exchange) proves(g *token.Guard, fresh bool) bool {
	l := x.w.cfg.Loop
	a := g.Ask(&x.w.tokens, &x.head, x.path(), l.Wall(), fresh)
	switch {
	case a.Wait != nil:
		k := &keysWait{x}
		if !a.Wait.Wait(l, k.tell) {
			a.Reason, a.Why = failure.IssuerUnavailable, token.ErrCrowd
			x.conceal(g)
			x.disbelieve(&a)
			x.answer(failure.IssuerUnavailable)
			return false
		}
		x.waiting = k
		l.Arm(&x.due, tokenWait)
		return false
	case a.Reason != failure.None:
		if a.Reason == failure.TokenMissing {
			x.bore(g, nil)
		}
		x.conceal(g)
		x.disbelieve(&a)
		x.answer(a.Reason)
		return false
	}
	if x.token = a.Token; a.Token != nil {
		x.lasts(a.Token.Ends())
	}
	x.bore(g, a.Token)
	x.notes = g.Dress(&x.head, a.Token, x.notes)
	x.rec.Path = x.head.Target
	x.conceal(g)
	return true
}

// bore tells the record whether there was a token, and whose.
func (x *Exchange) bore(g *token.Guard, t *token.Verified) {
	issuer := ""
	if t != nil {
		issuer = t.Issuer
	}
	x.looked = decision.AppendToken(x.looked[:0], g.Issuers(), issuer)
	x.rec.Named = x.looked
}

// conceal takes tokens out of what is recorded of the request. g may be nil.
func (x *Exchange) conceal(g *token.Guard) { x.rec.Path, x.notes = g.Redact(x.rec.Path, x.notes) }

// proveAgain asks once more, now that keys have come or are not waited for any longer.
func (x *Exchange) proveAgain() {
	x.stopWaiting()
	x.busy++
	if g := x.origin.Tokens.Guard(); !x.finished && (g == nil || x.proves(g, false)) {
		x.pass()
	}
	x.leave()
}

func (x *Exchange) stopWaiting() {
	if x.waiting != nil {
		x.waiting.x, x.waiting = nil, nil
	}
	x.w.cfg.Loop.Disarm(&x.due)
}

// proofDue: keys have not come, or the token may have ended.
func (x *Exchange) proofDue() {
	switch {
	case x.finished:
	case x.waiting != nil:
		x.proveAgain()
	default:
		if a := x.unproven(x.origin.Policies.Rules()); a.Reason != failure.None {
			x.disprove(&a)
		}
	}
}

// clockSet is within what time a clock that was set is noticed.
const clockSet = 15 * time.Second

// lasts has the token looked at again when it ends, Unix seconds; 0: never.
func (x *Exchange) lasts(end int64) {
	if l := x.w.cfg.Loop; end != 0 {
		l.Arm(&x.due, min(max(time.Unix(end, 0).Sub(l.Wall()), 0), clockSet))
	}
}

// unproven answers why the request, which is open, would now be refused for its token or for want of one, r being what is in force.
// Without a reason: it would not, or nothing looks at tokens.
func (x *Exchange) unproven(r *policy.Rules) (a token.Answer) {
	g := x.origin.Tokens.Guard()
	needed := false
	if g != nil {
		a.Policy, needed = g.Requires(&x.w.tokens, &x.head, x.path())
	}
	switch {
	case x.token == nil && needed:
		a.Reason, a.Why = failure.TokenMissing, token.ErrNone
		return a
	case x.token == nil, !needed && (r == nil || !r.Tokens(x.origin.Caller.Port)):
		return a
	case g == nil: // no tokens are looked for any more: rules are asked about a request without one
		x.token = nil
		return a
	}
	end, err := g.Still(x.token, x.w.cfg.Loop.Wall())
	if err != nil {
		return token.Answer{Reason: failure.TokenInvalid, Why: err, Policy: g.Policy(x.token.Issuer), Issuer: x.token.Issuer}
	}
	x.lasts(end)
	return a
}

// disprove ends what is open although its token, or the want of one, would have it refused by now.
func (x *Exchange) disprove(a *token.Answer) {
	x.rec.Decision = record.Decision{} // policies are not asked about it
	x.disbelieve(a)
	x.end(a.Reason)
}

// challenge says in an answer what kind of proof is missing.
func (x *Exchange) challenge(h *message.Head, why failure.Reason) {
	if c := token.Challenge(why); c != nil {
		h.Add(nameChallenge, c)
	}
}

var nameChallenge = []byte("www-authenticate")

// maxIssuer bounds what a token that is not believed says of its issuer, bytes.
const maxIssuer = 256

// disbelieve tells the record, and the log, why a request's token is refused, or that it has none: which policy, whose token, what is
// wrong with it. Anybody can send such, so lines are bounded, and nothing else of the token is told.
func (x *Exchange) disbelieve(a *token.Answer) {
	r := &x.rec.Decision.Refusal
	*r = record.Refusal{By: a.Policy, Issuer: strings.Clone(a.Issuer[:min(len(a.Issuer), maxIssuer)])}
	if a.Why != nil {
		r.Cause = "the token " + a.Why.Error()
		if a.Reason == failure.TokenMissing {
			r.Cause = "a token " + a.Why.Error()
		}
	}
	caller, port := "", x.origin.Service.Port
	if c := x.origin.Caller; c != nil {
		caller = c.Principal
		port = c.Port
	}
	if caller == "" {
		caller = x.rec.From.String()
	}
	w := x.w
	unsaid, ok := w.cfg.Unproven.Room(w.cfg.Loop.Wall().Unix(), policy.Kind(port, caller, a.Reason.Label(), r.Cause))
	if !ok {
		return
	}
	args := []any{"caller", caller, "port", port, "method", x.rec.Method, "host", policy.Clip(string(x.rec.Authority)),
		"path", policy.Clip(string(withoutQuery(x.rec.Path))), "request_id", string(x.rec.RequestID), "policy", r.By}
	if r.Issuer != "" {
		args = append(args, "issuer", r.Issuer)
	}
	policy.Say(w.cfg.Log, a.Reason.Label(), unsaid, append(args, "why", r.Cause)...)
}

func withoutQuery(path []byte) []byte {
	p, _, _ := bytes.Cut(path, question)
	return p
}

// says adds what a verified token says to what policies look at.
func (x *Exchange) says(a *authz.Attributes) {
	if x.token != nil {
		a.Token = x.token.Principal
	}
}

// claim answers a claim of the verified token, as authz.Fields does.
func (x *Exchange) claim(name string, i int) (string, bool) {
	if x.token == nil {
		return "", false
	}
	return x.token.Value(name, i)
}
