package admission

import (
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// ask is a question under way to a rate-limit service. It outlives a ticket that does not wait for it any more.
type ask struct {
	ticket *Ticket // nil: nobody waits
	rules  []*rule // one for each descriptor
	q      model.RateQuestion
}

// Bounds of what is asked, in bytes of a value; longer ones are cut.
const maxValue = 1024

// question adds the rule's descriptor to what is asked. A rule that looks at a field that is not there asks nothing, as
// Envoy's actions do.
func (t *Ticket) question(r *rule, q *Question) {
	d := make(model.Descriptor, 0, len(r.By))
	for i := range r.By {
		key, value, ok := entryOf(&r.By[i], q)
		switch {
		case ok:
			d = append(d, model.DescriptorEntry{Key: key, Value: value})
		case !r.By[i].Optional:
			return
		}
	}
	if d = append(d, r.names...); len(d) == 0 {
		d = append(d, model.DescriptorEntry{Key: "generic_key", Value: r.Name})
	}
	a := t.ask
	if a == nil {
		a = &ask{ticket: t, q: model.RateQuestion{Cluster: r.ask.Cluster, Domain: r.ask.Domain, Timeout: r.ask.Timeout}}
		t.ask = a
	}
	if a.q.Cluster != r.ask.Cluster || a.q.Domain != r.ask.Domain {
		t.gate.failures.Add(1) // one service a request; Terms never have two
		return
	}
	a.rules, a.q.Descriptors = append(a.rules, r), append(a.q.Descriptors, d)
}

// entryOf answers what a key says of a request, in the words of Envoy's actions.
func entryOf(k *model.RateKey, q *Question) (key, value string, ok bool) {
	switch k.Kind {
	case model.RateByCaller:
		key = "source_cluster"
		if value = "outside"; q.Caller.Name != "" {
			value = q.Caller.String()
		}
	case model.RateByAddress:
		key, value = "remote_address", q.Address.Unmap().String()
	case model.RateByHeader:
		v := fieldOf(q.Head, k.Name)
		if len(v) == 0 {
			return "", "", false
		}
		key, value = k.Name, string(v[:min(len(v), maxValue)])
	case model.RateByPath:
		p := pathOf(q.Head)
		key, value = "path", string(p[:min(len(p), maxValue)])
	case model.RateByMethod:
		key, value = "method", string(q.Head.Method)
	case model.RateByCluster:
		key, value = "destination_cluster", q.Cluster.String()
	default:
		key, value = "generic_key", k.Value
	}
	if k.Key != "" {
		key = k.Key
	}
	return key, strings.ToValidUTF8(value, "?"), true // the protocol has no other text: the whole question would be lost
}

// send asks. Who cannot be asked has not refused: the limits say what that means.
func (t *Ticket) send() Outcome {
	a, on := t.ask, t.loop.loop
	if a.q.Timeout <= 0 {
		a.q.Timeout = defaultTimeout
	}
	if t.gate.cfg.Ask == nil || !t.gate.cfg.Ask(&a.q, func(r *model.RateAnswer, err error) {
		on.Post(func() { a.answered(r, err) })
	}) {
		t.ask, a.ticket = nil, nil
		if r := t.unanswered(a); r != nil {
			return t.refuse(r, 0)
		}
		return t.owed()
	}
	return Waiting
}

// defaultTimeout is Envoy's.
const defaultTimeout = 20 * time.Millisecond

// answered is called on the loop.
func (a *ask) answered(r *model.RateAnswer, err error) {
	t := a.ticket
	if t == nil {
		return
	}
	t.ask, a.ticket = nil, nil
	if err != nil || r == nil {
		if r := t.unanswered(a); r != nil {
			t.tell(t.refuse(r, 0))
			return
		}
		t.tell(t.owed())
		return
	}
	var refused *rule
	wait := time.Duration(0)
	for i, rule := range a.rules {
		if i >= len(r.Descriptors) {
			break
		}
		d := &r.Descriptors[i]
		t.showAnswer(rule, d)
		if !d.Over {
			continue
		}
		if rule.note(); !rule.Shadow {
			refused, wait = rule, max(wait, d.Reset)
		}
	}
	if refused != nil {
		t.tell(t.refuse(refused, wait))
		return
	}
	t.tell(t.owed())
}

// unanswered answers the rule that refuses without an answer, nil if none does.
func (t *Ticket) unanswered(a *ask) *rule {
	t.gate.failures.Add(1)
	for _, r := range a.rules {
		if r.ask.Closed && !r.Shadow {
			r.note()
			return r
		}
	}
	return nil
}
