// Package recall asks the proxies that are connected to this control plane what they remember of requests (their flight recorders),
// for `tulle explain`. It promises that a proxy is believed only about its own workload, that nobody is waited for longer than
// Patience, and that a bounded number of questions is asked at the same time. It asks nothing by itself and keeps no answer. Safe for
// concurrent use; no goroutines. Start reading at Recall.Ask.
package recall

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/xds/server"
)

// Bounds.
const (
	Patience = 5 * time.Second // that one question waits for answers
	maxAsked = 4               // questions at the same time
	maxViews = 20_000          // that are asked for of all proxies together, where no request is named
)

// ErrBusy is the answer to who asks while others do.
var ErrBusy = errors.New("several people ask what proxies remember: ask again in a few seconds")

// Recall is the proxies that can be asked: a server.Recall. Its zero value is ready to use.
type Recall struct {
	mu      sync.Mutex
	proxies map[*proxy]struct{}
	next    uint64
	open    map[uint64]*inquiry
}

// proxy is one session.
type proxy struct {
	hello server.Hello
	ask   server.Ask
}

func (p *proxy) name() string { return p.hello.Namespace + "/" + p.hello.Workload }

// inquiry is one question that waits for answers.
type inquiry struct {
	waits map[*proxy]struct{} // for whom; the owner's mu guards it
	told  chan answer         // room for all of them
}

type answer struct {
	by   *proxy
	list []flight.Explained
	why  string
}

// Join implements server.Recall.
func (r *Recall) Join(h server.Hello, ask server.Ask) (told func(server.Told), left func()) {
	p := &proxy{h, ask}
	r.mu.Lock()
	if r.proxies == nil {
		r.proxies, r.open = map[*proxy]struct{}{}, map[uint64]*inquiry{}
	}
	r.proxies[p] = struct{}{}
	r.mu.Unlock()
	return func(t server.Told) { r.told(p, t) }, func() {
		r.mu.Lock()
		delete(r.proxies, p)
		var waiting []*inquiry
		for _, q := range r.open {
			if q.expects(p) {
				waiting = append(waiting, q)
			}
		}
		r.mu.Unlock()
		for _, q := range waiting {
			q.told <- answer{by: p, why: "it has just gone"}
		}
	}
}

// expects reports whether an answer of p is waited for; from then on it is not any more. The caller holds mu.
func (q *inquiry) expects(p *proxy) bool {
	_, ok := q.waits[p]
	delete(q.waits, p)
	return ok
}

// told takes an answer. What was not asked, or is late, is passed over unread.
func (r *Recall) told(p *proxy, t server.Told) {
	r.mu.Lock()
	q := r.open[t.ID]
	wanted := q != nil && q.expects(p)
	r.mu.Unlock()
	if !wanted {
		return
	}
	a := answer{by: p, why: t.Why}
	if a.why == "" {
		a.list, a.why = read(p, t.JSON)
	}
	q.told <- a
}

// read answers what a proxy has said; whose proxy it is it does not say itself.
func read(p *proxy, text []byte) (list []flight.Explained, why string) {
	if json.Unmarshal(text, &list) != nil || len(list) > flight.MaxLast {
		return nil, "its proxy has answered what cannot be read"
	}
	for i := range list {
		e := &list[i]
		e.Workload, e.Namespace, e.Service = p.hello.Workload, p.hello.Namespace, p.hello.Service
	}
	return list, ""
}

// Ask asks every proxy that is connected here and answers what they have told, in no order, until ctx ends or Patience is over.
func (r *Recall) Ask(ctx context.Context, q flight.Question) (flight.Found, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	out := flight.Found{Of: []flight.Explained{}, Silent: []flight.Silent{}}
	one, id, list, err := r.begin()
	if err != nil {
		return out, err
	}
	defer r.end(id)
	if q.Last = min(max(q.Last, 1), flight.MaxLast); q.ID == "" && len(list) > 0 {
		q.Last = min(q.Last, max(maxViews/len(list), 1))
	}
	silent := func(p *proxy, why string) {
		out.Silent = append(out.Silent, flight.Silent{Workload: p.name(), Why: why})
	}
	waiting := map[*proxy]struct{}{}
	for _, p := range list {
		waiting[p] = struct{}{}
		out.Names = append(out.Names, p.name())
	}
	for _, p := range list {
		if err := p.ask(id, q); err != nil && r.forget(one, p) {
			delete(waiting, p)
			silent(p, err.Error())
		}
	}
	for len(waiting) > 0 && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case a := <-one.told:
			delete(waiting, a.by)
			if a.why != "" {
				silent(a.by, a.why)
				continue
			}
			out.Asked++
			out.Of = append(out.Of, a.list...)
		}
	}
	for p := range waiting {
		silent(p, "its proxy has not answered in time")
	}
	slices.SortFunc(out.Silent, func(a, b flight.Silent) int {
		return cmp.Or(strings.Compare(a.Workload, b.Workload), strings.Compare(a.Why, b.Why))
	})
	return out, nil
}

// begin makes an inquiry that all proxies are waited for.
func (r *Recall) begin() (one *inquiry, id uint64, list []*proxy, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.open) >= maxAsked {
		return nil, 0, nil, ErrBusy
	}
	one = &inquiry{waits: map[*proxy]struct{}{}, told: make(chan answer, len(r.proxies))}
	for p := range r.proxies {
		one.waits[p] = struct{}{}
		list = append(list, p)
	}
	if r.open == nil {
		r.open = map[uint64]*inquiry{}
	}
	r.next++
	r.open[r.next] = one
	return one, r.next, list, nil
}

// forget waits for p no more, and reports whether it did: it may have gone, which is told as an answer.
func (r *Recall) forget(one *inquiry, p *proxy) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return one.expects(p)
}

func (r *Recall) end(id uint64) {
	r.mu.Lock()
	delete(r.open, id)
	r.mu.Unlock()
}
