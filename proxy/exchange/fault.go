package exchange

import (
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// Faults that are injected (model.Fault): a delay, an answer or a reset instead of an attempt, a slow response.

// faulty is what chance has chosen for one exchange.
type faulty struct {
	with  *model.Fault  // it is aborted; nil: it is not
	delay time.Duration // before anything else; 0: none
	waits bool          // the delay is under way
}

// faultOf answers the fault of the route, nil if there is none. A foreign chain needs the filter for that, and the filter's
// own is for routes that have none.
func (x *Exchange) faultOf(r *router.Route) *router.Fault {
	switch c := x.origin.HTTP; {
	case c == nil || c.Fault != nil && r.Inject != nil:
		return r.Inject
	case c.Fault != nil:
		return x.origin.Fault
	}
	return nil
}

// inject draws what happens to the request.
func (x *Exchange) inject(f *router.Fault) {
	if !f.Concerns(&x.head) {
		return
	}
	if f.Delay > 0 && x.among(f.DelayShare) {
		x.faulty.delay = f.Delay
	}
	if (f.Reset || f.Status > 0 || f.GRPC > 0) && x.among(f.AbortShare) {
		x.faulty.with, x.own = f.Fault, ownAbort
	}
	if f.Rate > 0 && x.among(f.RateShare) {
		x.slow = slow{client: x.client, rate: float64(f.Rate)}
		x.client = (*slowClient)(x)
	}
}

// delay reports whether the exchange waits for its injected delay; then proceed is called after it. The request's timeouts run
// meanwhile, as they would if the server were slow.
func (x *Exchange) delay() bool {
	if x.faulty.delay == 0 {
		return false
	}
	x.faulty.waits = true
	x.w.cfg.Loop.Arm(&x.faultTimer, x.faulty.delay)
	return true
}

// faultExpired ends a delay, or lets further bytes of a slow response through.
func (x *Exchange) faultExpired() {
	x.busy++
	switch {
	case x.finished:
	case x.faulty.waits && !x.begun:
		x.faulty.waits = false
		x.proceed()
	default:
		x.Writable()
	}
	x.leave()
}

// abort answers as the fault says, or resets the client's stream or connection.
func (x *Exchange) abort() {
	if !x.faulty.with.Reset {
		x.answer(failure.FaultInjected)
		return
	}
	x.reason = failure.FaultInjected
	x.client.Abort(x.reason)
	x.finish()
}

// disguise gives the answer of an injected fault its status.
func (x *Exchange) disguise(h *message.Head) {
	f := x.faulty.with
	if f == nil {
		return
	}
	if x.rec.Protocol != model.ProtocolGRPC {
		if f.Status > 0 {
			h.Status = f.Status
		}
		return
	}
	code := f.GRPC
	if code <= 0 {
		code = grpcOfStatus(f.Status)
	}
	x.rec.GRPC = code
	for i := range h.Fields {
		if message.EqualFold(h.Fields[i].Name, "grpc-status") {
			n := len(x.notes)
			x.notes = strconv.AppendInt(x.notes, int64(code), 10)
			h.Fields[i].Value = x.notes[n:len(x.notes):len(x.notes)]
		}
	}
}

// grpcOfStatus is the gRPC status that a client makes of an HTTP status
// (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md).
func grpcOfStatus(status int) int {
	switch status {
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return 14
	}
	return 2
}

// slow is a response that is given to its client at a bounded rate. slowClient stands between the exchange and the client;
// what the client may not have yet waits as if it had not taken it, so the upstream is slowed down too.
type slow struct {
	client Client
	rate   float64       // bytes a second
	tokens float64       // bytes that may pass now
	at     time.Duration // loop time when tokens was true
	begun  bool
}

// slowParts is in how many parts a second's bytes go out, as Envoy's do.
const slowParts = 16

type slowClient Exchange

// Head implements Client.
func (t *slowClient) Head(h *message.Head, end bool) { t.slow.client.Head(h, end) }

// Data implements Client.
func (t *slowClient) Data(p []byte, end bool) int {
	s, l := &t.slow, t.w.cfg.Loop
	now, most := l.Now(), max(s.rate/slowParts, 1)
	if s.tokens = min(s.tokens+(now-s.at).Seconds()*s.rate, most); !s.begun {
		s.begun, s.tokens = true, most
	}
	s.at = now
	n := min(int(s.tokens), len(p))
	if n < len(p) {
		want := min(float64(len(p)-n), most) - (s.tokens - float64(n))
		l.Arm(&t.faultTimer, time.Duration(max(want, 0)/s.rate*float64(time.Second))+time.Millisecond)
		if end = false; n == 0 {
			return 0
		}
	}
	n = s.client.Data(p[:n], end)
	s.tokens -= float64(n)
	return n
}

// Trailers implements Client.
func (t *slowClient) Trailers(h *message.Head) { t.slow.client.Trailers(h) }

// Consumed implements Client.
func (t *slowClient) Consumed(n int) { t.slow.client.Consumed(n) }

// Abort implements Client.
func (t *slowClient) Abort(reason failure.Reason) { t.slow.client.Abort(reason) }

// Finished implements Client.
func (t *slowClient) Finished() { t.slow.client.Finished() }
