package exchange

import (
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/policy"
)

// External authorizers. The policies allow the request, and one of them names a service that has the last word. It is asked from
// a goroutine (Config.Consult), the exchange waits as it does for its turn, and the answer is posted to its loop. What cannot be
// asked is refused, unless the policy says otherwise. What an answer changes is in comply.go, and who is asked about again, while
// it is open, in consultagain.go.

// Consult asks the authorizer of q; then is called once, from any goroutine. It answers false, and then is not called, if nobody
// can be asked.
type Consult func(q *model.AuthorizerQuestion, then func(*model.AuthorizerAnswer, error)) bool

// collectWait is how long the part of a body that is sent along may take to come.
const collectWait = 10 * time.Second

// consulting is what an exchange has to do with an authorizer.
type consulting struct {
	rule   *authz.Rule             // that wants it
	by     *model.Authorizer       // nil: nobody is asked
	waits  bool                    // for the part of the body that is sent along
	answer *model.AuthorizerAnswer // that refuses it
	// question is the first one, and response what was said then about the response.
	question *model.AuthorizerQuestion
	response []model.FieldEdit
	let      bool  // it is in
	queued   bool  // to be asked about again
	failed   uint8 // questions in a row that nobody has answered since it is in
}

// consult begins to ask, and reports whether the request goes on at once. Otherwise it has been answered, or waits.
func (x *Exchange) consult(r *policy.Rules, v *authz.Verdict) bool {
	c := &x.asking
	c.rule, c.by = v.External, r.Authorizer(v.Authorizer)
	switch {
	case c.by == nil || x.w.cfg.Consult == nil:
		return x.unheard()
	case c.by.Body > 0 && !x.ended && !x.upgrade:
		c.waits = true
		x.w.cfg.Loop.Arm(&x.collectTimer, collectWait)
		x.invite()
		return false
	}
	return x.refer()
}

// collect takes note of n bytes of the body, and asks when there are enough. The client gets credit for them, so that they come.
func (x *Exchange) collect(n int) {
	most := int(x.asking.by.Body)
	if !x.ended && (len(x.body) < most || len(x.body) == most && x.head.ContentLength <= int64(most)) {
		if n > 0 {
			x.credited += int64(n)
			x.client.Consumed(n)
		}
		return
	}
	x.asking.waits = false
	x.w.cfg.Loop.Disarm(&x.collectTimer)
	if !x.asking.by.PartialBody && (len(x.body) > most || !x.ended) {
		x.asking.answer = &model.AuthorizerAnswer{Status: 413}
		x.object(record.NotAsked, "the request's body is longer than the authorizer is shown")
		x.answer(failure.AuthzDenied)
		return
	}
	if x.refer() {
		x.enter()
	}
}

// collectExpired: the body does not come; or it is time to ask again.
func (x *Exchange) collectExpired() {
	x.busy++
	switch {
	case x.finished:
	case x.asking.waits:
		x.asking.waits = false
		x.object(record.NotAsked, "the part of the request's body that the authorizer is shown has not come in time")
		x.answer(failure.AuthorizerUnavailable)
	case x.asking.let:
		x.w.queue(x)
	}
	x.leave()
}

// refer asks, and reports whether the request goes on at once.
func (x *Exchange) refer() bool {
	turn, l := x.turn, x.w.cfg.Loop
	x.asking.question = x.consultation()
	ok := x.w.cfg.Consult(x.asking.question, func(a *model.AuthorizerAnswer, err error) {
		l.Post(func() {
			if x.turn != turn { // it is over, and perhaps another one by now
				return
			}
			x.busy++
			if x.comply(a, err) {
				x.enter()
			}
			x.leave()
		})
	})
	return !ok && x.unheard()
}

// unheard: nobody answers. It reports whether the request goes on all the same.
func (x *Exchange) unheard() bool {
	if by := x.asking.by; by != nil && by.FailOpen {
		x.letIn(record.Unanswered)
		return true
	}
	x.object(record.Unanswered, "")
	x.answer(failure.AuthorizerUnavailable)
	return false
}

// word tells the record what the authorizer has said.
func (x *Exchange) word(said record.Word) *record.Decision {
	c, d := &x.asking, &x.rec.Decision
	d.Word, d.External, d.ExternalRule, d.Refusal = said, c.rule.Policy, c.rule.Name, record.Refusal{}
	if d.Authorizer = (model.PortName{}); c.by != nil {
		d.Authorizer = c.by.Backend
	}
	return d
}

// object tells the record, and the log, that the policy with the authorizer has refused: because of what that has said, or for
// another cause.
func (x *Exchange) object(said record.Word, cause string) {
	d := x.word(said)
	d.Verdict, d.Action, d.Policy, d.Rule = record.Denied, model.ActionExternal, x.asking.rule.Policy, x.asking.rule.Name
	d.Refusal.Cause = cause
	if d.Dry == record.Denied { // those in dry run would have decided the same
		d.Dry, d.DryPolicy, d.DryRule, d.DryAbsent = record.Unasked, "", "", false
	}
	x.origin.Policies.Objected(x.inquired(), d, x.rec.RequestID)
}

// inquired answers what the log says about the request.
func (x *Exchange) inquired() *authz.Attributes {
	hops := 0
	if r := x.origin.Policies.Rules(); r != nil {
		hops = r.TrustedHops()
	}
	return x.attributes(hops)
}

// consultation is the question about a request. It is copied: the exchange may be over before it is answered.
func (x *Exchange) consultation() *model.AuthorizerQuestion {
	o, by := x.origin, x.asking.by
	q := &model.AuthorizerQuestion{
		Authorizer: by, ID: string(x.rec.RequestID), Method: strings.Clone(x.rec.Method), Path: string(x.head.Target), Host: string(x.head.Authority),
		Scheme: "http", Protocol: "HTTP/1.1", At: x.w.cfg.Loop.Wall(),
		Source: model.AuthorizerPeer{Principal: o.Caller.Principal, Address: addressText(o), Port: o.Remote.Port()},
		Target: model.AuthorizerPeer{Service: o.Service.Service.String(), Address: o.Program.Addr().String(), Port: o.Service.Port},
	}
	if x.version == message.HTTP2 {
		q.Protocol = "HTTP/2"
	}
	if o.Source != (model.ServiceName{}) {
		q.Source.Service = o.Source.String()
	}
	for _, f := range x.head.Fields {
		if name := strings.ToLower(string(f.Name)); sent(by, name) {
			q.Fields = append(q.Fields, model.Header{Name: name, Value: string(f.Value)})
		}
	}
	if by.Body > 0 {
		n := min(len(x.body), int(by.Body))
		q.Body, q.Partial = append([]byte(nil), x.body[:n]...), n < len(x.body) || !x.ended || x.dropped > 0
	}
	return q
}

func addressText(o *Origin) string {
	if !o.Caller.IP.IsValid() {
		return ""
	}
	return o.Caller.IP.String()
}

// sent reports whether an authorizer is told a field.
func sent(by *model.Authorizer, name string) bool {
	if len(by.RequestHeaders) == 0 {
		return !by.HTTP || name == "authorization" || name == "cookie"
	}
	for _, n := range by.RequestHeaders {
		if n == name {
			return true
		}
	}
	return false
}
