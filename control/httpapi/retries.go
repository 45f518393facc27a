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
	Pinned    []string  `json:"pinned,omitempty"` // routes whose policy fixes the waits, and how
	Last      []Outages `json:"last,omitempty"`   // the last one first
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
		one := Retries{Service: name.String(), Whole: lasts(&d.Learned.Service), Endpoints: lasts(&d.Learned.Endpoint), Pinned: a.pinned(name)}
		if l := d.Learned.Service.Law(); l != nil {
			one.Learned, one.Waits = true, waits(l)
		}
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
func waits(l *recovery.Law) (out []Wait) {
	down := time.Duration(0)
	for left := shownWaits; left > 0; left-- {
		from := l.Wait(&recovery.Question{Down: down, Left: left})
		to := l.Wait(&recovery.Question{Down: down, Left: left, Random: 1<<64 - 1})
		out = append(out, Wait{ms(from), ms(to)})
		down += (from + to) / 2
	}
	return out
}

// pinned answers the routes of a port whose policy says the waits.
func (a *API) pinned(name model.PortName) (out []string) {
	if a.cfg.RouteTable == nil {
		return nil
	}
	t, ok := a.cfg.RouteTable(name)
	if !ok {
		return nil
	}
	for i := range t.Routes {
		if r := &t.Routes[i]; r.Retry != nil && r.Retry.Base > 0 {
			out = append(out, fmt.Sprintf("%s[%d]: %v to %v", r.Name, r.Rule, r.Retry.Base, r.Retry.Max))
		}
	}
	return out
}
