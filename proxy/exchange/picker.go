package exchange

import (
	"bytes"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Endpoint pickers (model.Picker). Before the first attempt all of the request is gathered, as far as the picker is shown any of it,
// and the picker asked, which takes place elsewhere and comes back to the loop. Whom it names, in its order, gets the attempts.
// Without such an answer the failure mode decides: the balancing, or nobody.

// picking is what an exchange has to do with a picker.
type picking struct {
	gathers bool              // the request's body, before the picker is asked
	inquiry *pick             // the question under way; nil: none is
	picked  *model.PickAnswer // that is in force; nil: none
}

// pick is a question under way. It outlives an exchange that does not wait for it any more.
type pick struct {
	x *Exchange // nil: nobody waits
	q model.PickQuestion
}

// gather begins. A client that waits to be asked for the body is asked for it here.
func (x *Exchange) gather() {
	x.gathers = true
	if x.invite(); !x.finished {
		x.gathered()
	}
}

// invite asks a client for the body that waits to be asked for it.
func (x *Exchange) invite() {
	if !x.head.Continue || x.ended {
		return
	}
	h := &x.w.reply.head
	h.Reset()
	h.Version, h.Status = message.HTTP11, 100
	x.head.Continue = false
	x.head.Remove(string(nameExpect))
	x.client.Head(h, false)
}

// gathered asks when all of the request is here. One that switches protocols has no end: its head is all there is to be shown.
func (x *Exchange) gathered() {
	p := x.cluster.Model().Picker
	most := int64(model.DefaultPickBody)
	if p != nil && p.MaxBody > 0 {
		most = int64(p.MaxBody)
	}
	switch n := int64(len(x.body)); {
	case n > most, !x.ended && !x.upgrade && x.head.ContentLength > most:
		x.unnamed(failure.PickTooLarge)
	case x.ended || x.upgrade:
		x.ask(p)
	default:
		if n -= x.credited; n > 0 {
			x.credited += n
			if x.gate == nil || x.pace(int(n), &x.owedClient) {
				x.client.Consumed(int(n))
			}
		}
	}
}

// ask asks the picker; nil: there is none any more.
func (x *Exchange) ask(p *model.Picker) {
	x.gathers = false
	if p == nil {
		x.attempt()
		return
	}
	names, some := x.cluster.Takes()
	if !some {
		x.unnamed(failure.NoEndpoint)
		return
	}
	a, on := &pick{x: x}, x.w.cfg.Loop
	a.q = model.PickQuestion{Picker: p.Cluster, Timeout: p.Timeout, Fields: x.shown(), Endpoints: names}
	if a.q.Timeout <= 0 {
		a.q.Timeout = model.DefaultPickTimeout
	}
	if a.q.HasBody = !x.upgrade && (len(x.body) > 0 || x.hasTrailers); a.q.HasBody {
		a.q.Body = bytes.Clone(x.body) // the exchange may end before the question does
	}
	x.inquiry = a
	if x.w.cfg.Pick == nil || !x.w.cfg.Pick(&a.q, func(r *model.PickAnswer, err error) {
		on.Post(func() { a.answered(r, err) })
	}) {
		x.inquiry, a.x = nil, nil
		x.unnamed(failure.PickFailed)
	}
}

// shown answers the request's head as the picker gets it: without what only proxies say to each other.
func (x *Exchange) shown() []model.Header {
	h := &x.head
	out := append(make([]model.Header, 0, len(h.Fields)+4), model.Header{Name: ":method", Value: string(h.Method)},
		model.Header{Name: ":scheme", Value: "http"}, model.Header{Name: ":authority", Value: string(h.Authority)}, model.Header{Name: ":path", Value: string(h.Target)})
	for _, f := range h.Fields {
		if name := strings.ToLower(string(f.Name)); !strings.HasPrefix(name, fieldPrefix) {
			out = append(out, model.Header{Name: name, Value: string(f.Value)})
		}
	}
	return out
}

// answered goes on with what the picker has said.
func (a *pick) answered(r *model.PickAnswer, err error) {
	x := a.x
	if x == nil {
		farewell(r, "", 0)
		return
	}
	x.busy++
	x.inquiry = nil
	switch {
	case err != nil:
		x.unnamed(failure.PickFailed)
	case r.Status != 0:
		x.picked = r
		x.answer(failure.PickRefused)
	default:
		x.picked = r
		x.obey(r)
		x.attempt()
	}
	x.leave()
}

// unnamed goes on without an answer, as the failure mode says. A body that goes on to come passes by then.
func (x *Exchange) unnamed(why failure.Reason) {
	x.gathers = false
	if p := x.cluster.Model().Picker; p == nil || p.FailOpen {
		x.attempt()
		return
	}
	x.unpicked(why)
}

// obey changes the request as the picker asks.
func (x *Exchange) obey(r *model.PickAnswer) {
	for _, name := range r.Remove {
		x.head.Remove(name)
	}
	for _, f := range r.Set {
		x.head.Remove(f.Name)
	}
	for _, f := range r.Set {
		x.head.Add(x.keepString(f.Name), x.keepString(f.Value))
	}
	if !r.Rewritten || !x.ended || bytes.Equal(r.Body, x.body) {
		return
	}
	x.w.buffers.Put(x.body)
	x.body = nil
	if len(r.Body) > 0 {
		x.body = x.w.buffers.Append(nil, r.Body)
	}
	if x.head.ContentLength != message.NoLength {
		x.head.ContentLength = int64(len(r.Body))
	}
	x.credited = 1 << 62 // the client has sent all of what it was, and gets no credit for what it is now
}

// choosePicked answers the first endpoint of the picker's that takes requests and has not failed this one.
func (x *Exchange) choosePicked(ch *cluster.Choice) (ep *cluster.Endpoint, from int, why failure.Reason) {
	for _, at := range x.picked.Endpoints {
		ep := x.cluster.At(at, ch)
		if ep == nil {
			continue
		}
		from++
		if !slices.Contains(ch.Excluded, ep) {
			return ep, len(x.picked.Endpoints), failure.None
		}
	}
	if from > 0 {
		return nil, from, failure.NoEndpoint
	}
	if p := x.cluster.Model().Picker; p == nil || p.FailOpen {
		return x.cluster.Choose(ch)
	}
	return nil, 0, failure.PickFailed
}

// quote gives our answer the picker's own status and text.
func (x *Exchange) quote(r *reply, grpc bool) {
	if grpc || x.picked == nil {
		return
	}
	r.head.Status = x.picked.Status
	if len(x.picked.Text) > 0 {
		r.text = append(r.text[:0], x.picked.Text...)
		r.head.ContentLength = int64(len(r.text))
	}
}

// tellPicker says who has answered.
func (x *Exchange) tellPicker(status int) {
	at := ""
	if x.ep != nil {
		at = x.cluster.Place(x.ep)
	}
	farewell(x.picked, at, status)
}

// leavePicker ends what is under way with the picker.
func (x *Exchange) leavePicker() {
	if a := x.inquiry; a != nil {
		a.x, x.inquiry = nil, nil
	}
	farewell(x.picked, "", 0)
	x.gathers, x.picked = false, nil
}

// farewell is said once.
func farewell(r *model.PickAnswer, endpoint string, status int) {
	if r != nil && r.Served != nil {
		r.Served(endpoint, status)
		r.Served = nil
	}
}
