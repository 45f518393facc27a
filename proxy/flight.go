package proxy

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// flightWait bounds the wait for loops that are asked what they remember.
const flightWait = 2 * time.Second

// explain answers what the loops remember of their last exchanges, the newest first: admin.Config.Explain. From any goroutine.
func (p *Proxy) explain(q flight.Question) []flight.Explained {
	q.Last = min(max(q.Last, 1), flight.MaxLast)
	b := p.cfg.Bootstrap
	return admin.Explain(p.flown(q), b.Workload, b.Namespace, b.Service)
}

// tell is explain for the control plane: client.Config.Explain. What is more than an answer may hold is left out, the oldest first.
func (p *Proxy) tell(q flight.Question) ([]byte, error) {
	list := p.explain(q)
	for {
		text, err := json.Marshal(list)
		if err != nil || len(text) <= flight.MaxJSON {
			return text, err
		}
		if len(list) == 1 {
			return nil, errors.New("what is remembered of it is too long to be told")
		}
		list = list[:len(list)/2]
	}
}

func (p *Proxy) flown(q flight.Question) (out []*observe.Flown) {
	answers := make(chan []*observe.Flown, len(p.workers))
	asked := 0
	takes := func(r *record.Record) bool { return admin.Takes(&q, r) }
	for _, w := range p.workers {
		if w.loop.Post(func() { answers <- w.recorder.Flight(takes, q.Last) }) {
			asked++
		}
	}
	late := time.After(flightWait)
	for ; asked > 0; asked-- {
		select {
		case list := <-answers:
			out = append(out, list...)
		case <-late: // a loop that is ending, or stuck
			asked = 1
		}
	}
	slices.SortStableFunc(out, func(a, b *observe.Flown) int { return b.Wall.Compare(a.Wall) })
	return out[:min(len(out), q.Last)]
}
