package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/control/outage"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/recovery"
)

// Retries is what was learned about how long failures of a destination last, and what follows.
type Retries struct {
	Service   string    `json:"service"` // "reviews.default:9080"
	Whole     Lasts     `json:"whole"`   // from a failure until any endpoint succeeds
	Endpoints Lasts     `json:"endpoints"`
	Learned   bool      `json:"learned"`          // enough was learned for waits to follow from it
	Waits     []Wait    `json:"waits,omitempty"`  // of a request whose attempts all fail
	Routes    []Policy  `json:"routes,omitempty"` // that have a policy of retries
	Pinned    []string  `json:"pinned,omitempty"` // those whose policy fixes the waits, and how
	Last      []Outages `json:"last,omitempty"`   // the last one first
	Made      uint64    `json:"made"`             // further attempts of all callers since the control plane began,
	Refused   uint64    `json:"refused"`          // and those that budgets did not allow
	Left      *int64    `json:"left,omitempty"`   // the least that a caller's budget allows; none: nobody was to try again lately
}

// Policy is what waits follow for one route.
type Policy struct {
	Route   string  `json:"route"` // "HTTPRoute/default/reviews[0]"
	Pinned  bool    `json:"pinned"`
	Least   float64 `json:"least_ms,omitempty"`
	Maximum float64 `json:"maximum_ms,omitempty"`
	Base    float64 `json:"base_ms,omitempty"` // pinned: the exponential's
	Waits   []Wait  `json:"waits,omitempty"`   // learned, within Least and Maximum; none: too little was learned
}

// Lasts is a distribution of how long failures last; times are in milliseconds.
type Lasts struct {
	Outages float64 `json:"outages"` // that are remembered, old ones count less
	P50     float64 `json:"p50_ms"`
	P90     float64 `json:"p90_ms"`
	P99     float64 `json:"p99_ms"`
}

// Wait is one between two attempts, in milliseconds. It is spread between From and To.
type Wait struct {
	From float64 `json:"from_ms"`
	To   float64 `json:"to_ms"`
}

// Outages is one outage, as many callers have seen it.
type Outages struct {
	Began   time.Time `json:"began"`
	Lasted  float64   `json:"lasted_ms"`
	Callers int       `json:"callers"`
}

// shownWaits is how many attempts a request is thought to have left.
const shownWaits = 4

func (a *API) serveRetries(r *http.Request) (any, error) {
	if a.cfg.Outages == nil {
		return nil, missing("how long failures last")
	}
	known := map[model.PortName]outage.Destination{}
	for _, d := range a.cfg.Outages() {
		known[d.Name] = d
	}
	list := []Retries{}
	for _, name := range a.ports(r) {
		d := known[name]
		one := Retries{Service: name.String(), Whole: lasts(&d.Learned.Service), Endpoints: lasts(&d.Learned.Endpoint), Made: d.Made, Refused: d.Refused}
		if !d.LeftAt.IsZero() && a.cfg.Now().Sub(d.LeftAt) < recent {
			one.Left = &d.Left
		}
		l := d.Learned.Service.Law()
		if l != nil {
			one.Learned, one.Waits = true, waits(l, 0, 0)
		}
		a.follow(&one, name, l)
		for _, o := range slices.Backward(d.Last) {
			one.Last = append(one.Last, Outages{Began: o.Began, Lasted: ms(o.Ended.Sub(o.Began)), Callers: o.Callers})
		}
		list = append(list, one)
	}
	return list, nil
}

func lasts(s *recovery.Sketch) Lasts {
	return Lasts{Outages: s.Weight(), P50: ms(s.Quantile(0.5)), P90: ms(s.Quantile(0.9)), P99: ms(s.Quantile(0.99))}
}

func ms(d time.Duration) float64 { return float64(d.Round(100*time.Microsecond).Microseconds()) / 1000 }

// waits answers those of a request whose attempts all fail, the first of them with the first failure of the destination.
func waits(l *recovery.Law, least, most time.Duration) (out []Wait) {
	down := time.Duration(0)
	for left := shownWaits; left > 0; left-- {
		from := max(l.Wait(&recovery.Question{Down: down, Left: left, Most: most}), least)
		to := max(l.Wait(&recovery.Question{Down: down, Left: left, Most: most, Random: 1<<64 - 1}), least)
		out = append(out, Wait{ms(from), ms(to)})
		down += (from + to) / 2
	}
	return out
}

// recent is for how long what a caller has left is shown.
const recent = 20 * time.Second

// follow says what follows for each route of a port that has a policy.
func (a *API) follow(one *Retries, name model.PortName, l *recovery.Law) {
	if a.cfg.RouteTable == nil {
		return
	}
	t, ok := a.cfg.RouteTable(name)
	if !ok {
		return
	}
	for i := range t.Routes {
		r := &t.Routes[i]
		if r.Retry == nil {
			continue
		}
		p := Policy{Route: fmt.Sprintf("%s[%d]", r.Name, r.Rule), Pinned: r.Retry.Base > 0, Least: ms(r.Retry.Least), Maximum: ms(r.Retry.Max), Base: ms(r.Retry.Base)}
		switch {
		case p.Pinned:
			one.Pinned = append(one.Pinned, fmt.Sprintf("%s: %v to %v", p.Route, r.Retry.Base, r.Retry.Max))
		case l != nil:
			p.Waits = waits(l, r.Retry.Least, r.Retry.Max)
		}
		one.Routes = append(one.Routes, p)
	}
}
