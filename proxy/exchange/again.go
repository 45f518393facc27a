package exchange

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/filter"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/retry"
)

// Whether, when and with whose leave a request is sent again. What has surely reached nobody always may be, within the
// number of attempts; what may have been acted on only if that does no harm (package retry), the route's policy, or the
// mesh's own way, wants it, and the cluster's budget has room for it. All of the request must still be here, and nothing of
// a response may have gone out.

const (
	// programAttempts is how many attempts the program beside us gets: a second one because it may have closed an idle
	// connection just when the request was sent on it. More would multiply with those of the caller's proxy.
	programAttempts = 2
	// foreignRetries is Envoy's default bound of retries under way in a cluster that has neither max_retries nor a budget.
	foreignRetries = 3

	fieldKeyed = "idempotency-key"
	fieldAfter = "retry-after"
)

// policy answers what the route says about retries, nil: nothing.
func (x *Exchange) policy() *model.Retry {
	if x.route == nil {
		return nil
	}
	return x.route.Retry
}

// elsewhere reports whether endpoints that have failed the request are left out.
func (x *Exchange) elsewhere() bool {
	p := x.policy()
	return p == nil || p.OtherHosts || x.rivals != nil
}

// repeatable reports whether the request may be sent again although it may have been acted on.
func (x *Exchange) repeatable() bool {
	return retry.Repeatable(x.policy(), x.rec.Method, false) || x.head.Has(fieldKeyed)
}

// replayable reports whether the request can be sent again although the upstream may have acted on it, as far as that is
// known before it is sent.
func (x *Exchange) replayable() bool {
	return x.repeatable() && (x.ended || x.head.ContentLength >= 0 && x.head.ContentLength <= int64(x.w.cfg.Replay))
}

// canRepeat reports whether another attempt can be made at all.
func (x *Exchange) canRepeat() bool {
	most := x.w.cfg.Attempts
	if p := x.policy(); p != nil {
		most = 1 + int(min(p.Attempts, retry.Most))
	}
	return !x.begun && !x.shadow.on && x.dropped == 0 && x.count-x.spared < most
}

// mayRetry reports whether the request may be sent again after an attempt that has failed for reason.
func (x *Exchange) mayRetry(reason failure.Reason) bool {
	switch {
	case !x.canRepeat():
		return false
	case x.cluster == nil && (x.unreachable() || x.count >= programAttempts):
		return false // there is one program; the caller's proxy knows other ones
	case reason.Untouched():
		return true
	}
	p := x.policy()
	switch {
	case p != nil && retry.Failed(p, reason), x.stale && reason == failure.UpstreamReset:
	case p != nil, x.origin.HTTP != nil && !x.stale:
		return false // a foreign route says so itself when it wants more
	}
	return reason.Retryable() && x.repeatable()
}

// unwelcome answers why a response is not passed on but the request sent again: the proxy in front of the endpoint, and
// not the program, has answered, and that makes sense elsewhere (its program does not accept, it is about to end); or
// the route's policy names the status. None: it is passed on, and the reason that a proxy gave becomes ours.
func (x *Exchange) unwelcome(h *message.Head) failure.Reason {
	x.reason = failure.None
	if x.cluster == nil {
		return failure.None
	}
	if label := h.Get(fieldReason); label != nil {
		if reason, known := failure.ParseReason(string(label)); known {
			x.reason = reason
		}
	}
	if x.unreachable() || x.reason == failure.Draining {
		x.ep.ConnectFailed(x.w.cfg.Loop.Now())
	}
	if x.reason != failure.None && x.mayRetry(x.reason) {
		return x.reason
	}
	if x.mayShift() {
		return failure.Shed
	}
	p := x.policy()
	if p == nil || x.tunnelling(h) || !x.canRepeat() || x.reason == failure.Deadline {
		return failure.None
	}
	x.noteGRPC(h)
	if retry.Answered(p, h.Status, x.rec.GRPC) && x.repeatable() {
		return failure.RetriedStatus
	}
	return failure.None
}

// mayShift reports whether a request that the endpoint's proxy has shed may be tried on another endpoint: it surely has not
// come to the program. Once only, for when the load is uneven that helps, and when all are overloaded it does not; and not where
// its session is on that endpoint.
func (x *Exchange) mayShift() bool {
	return x.reason == failure.Shed && !x.shifted && x.canRepeat() && !x.session.known && (x.outOf > 1 || x.rivals != nil)
}

// againElsewhere makes another attempt instead of passing a response on, if it is unwelcome and there is room for one.
func (x *Exchange) againElsewhere(h *message.Head) bool {
	why := x.unwelcome(h)
	if why == failure.None {
		return false
	}
	if x.expired() {
		x.attemptFailed(why)
		return true
	}
	var wait time.Duration
	if x.rivals == nil {
		var ok bool
		if wait, ok = x.waitFor(h, why); !ok || !x.takeRetry(why) {
			return false
		}
	}
	if why == failure.RetriedStatus {
		x.responded(h.Status)
	} else {
		x.missed(x.try, why)
	}
	x.rec.GRPC = -1
	if x.rivals != nil {
		x.drop(why, true)
		return true
	}
	x.shifted = x.shifted || why == failure.Shed
	again := x.again // of the attempt that follows
	x.again = false
	x.endTry(x.try, why, true)
	x.again, x.reason = again, why
	x.sent, x.endSent = 0, false
	x.later(wait)
	return true
}

// waitFor answers how long to wait before the next attempt, after one that ended for reason with h, nil: without a
// response. ok is false if that is longer than the request, or the policy, has time for.
func (x *Exchange) waitFor(h *message.Head, reason failure.Reason) (d time.Duration, ok bool) {
	p := x.policy()
	if p == nil || x.cluster == nil {
		return 0, true
	}
	now := x.w.cfg.Loop.Now()
	x.rest.patient = p.Base == 0
	if reason == failure.Shed {
		x.rest.patient = false
		return 0, true
	}
	if !(x.count-x.spared == 1 && p.OtherHosts && x.outOf > 1 && retry.Unreached(reason)) { // else another endpoint takes it at once
		d = x.ownWait(p, now)
	}
	if h != nil && p.RetryAfter > 0 {
		if said, ok := x.after(p, h); ok {
			if said > p.RetryAfter {
				return 0, false
			}
			d, x.rest.patient = max(d, retry.Spread(said, x.w.random.Uint64())), false
		}
	}
	return d, x.ends == 0 || now+d < x.ends
}

// ownWait is the wait that the policy, or what was learned about the cluster, asks for.
func (x *Exchange) ownWait(p *model.Retry, now time.Duration) time.Duration {
	rnd := x.w.random.Uint64()
	if p.Base == 0 {
		if d, ok := x.cluster.Recovery().Wait(now, x.left(p), p.Max, rnd); ok {
			return retry.Clamp(p, d)
		}
	}
	return retry.Wait(p, x.count-x.spared, rnd)
}

// left answers how many attempts the policy leaves.
func (x *Exchange) left(p *model.Retry) int {
	return int(min(p.Attempts, retry.Most)) + 1 - (x.count - x.spared)
}

// after answers when the server wants to be asked again.
func (x *Exchange) after(p *model.Retry, h *message.Head) (time.Duration, bool) {
	wall := x.w.cfg.Loop.Wall()
	if len(p.AfterFields) == 0 {
		return retry.After(h.Get(fieldAfter), false, wall)
	}
	for i := range p.AfterFields {
		if v := h.Get(p.AfterFields[i].Name); v != nil {
			if d, ok := retry.After(v, p.AfterFields[i].Unix, wall); ok {
				return d, true
			}
		}
	}
	return 0, false
}

// takeRetry counts another attempt behind one that ended for reason, if the cluster and the route may have one.
func (x *Exchange) takeRetry(reason failure.Reason) bool {
	if x.cluster == nil {
		return true
	}
	if x.again {
		x.again = false
		x.breaker.Give(cluster.Retries)
	}
	may, held := x.mayRepeat(retry.Unreached(reason))
	x.again = held
	return may
}

// mayRepeat asks the cluster for one more attempt; held is for the try that makes it.
func (x *Exchange) mayRepeat(free bool) (may, held bool) {
	bound := int64(0)
	if x.origin.HTTP != nil && x.policy() != nil {
		bound = foreignRetries
	}
	may, held = x.cluster.MayRepeat(x.w.cfg.Loop.Now(), x.breaker, free, bound)
	if !free { // also if it may not: those above have to know why
		x.noteSpent()
	}
	return may, held
}

// fallBack sends a request that a breaker has refused, or that no endpoint could take, to the route's fallback. It
// reports whether there is one that can be tried.
func (x *Exchange) fallBack(why failure.Reason) bool {
	if x.route == nil || x.route.Fallback == nil || x.fallen || x.begun || x.shadow.on || x.dropped > 0 {
		return false
	}
	if why != failure.Overflow && why != failure.NoEndpoint && !why.Untouched() {
		return false
	}
	b := x.route.Fallback
	c := x.origin.Destination.Cluster(b.Cluster)
	if c == nil || b.Invalid {
		return false
	}
	x.endAttempt(why)
	filter.Request(b.Filters, &x.head)
	x.fallen, x.spared, x.ntried, x.reason, x.session.known = true, x.count, 0, failure.None, false
	x.backend, x.cluster, x.bound = b, c, nil
	x.leavePicker()
	x.breaker = c.Breaker(x.route.Priority)
	x.rec.Backend = b.Cluster
	x.rec.Destination, x.rec.Port = b.Cluster.Service, b.Cluster.Port
	x.sent, x.endSent = 0, false
	x.attempt()
	return true
}
