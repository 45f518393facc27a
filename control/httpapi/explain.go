package httpapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/tulle-mesh/tulle/control/recall"
	"github.com/tulle-mesh/tulle/model/flight"
)

// ExplainQuery is what GET /v1/explain asks for.
type ExplainQuery struct {
	ID string // x-request-id; "": any
	flight.Choice
}

// Values writes a query.
func (q *ExplainQuery) Values() url.Values {
	return url.Values{"id": {q.ID}, "service": {q.Service}, "last": {strconv.Itoa(q.Last)}, "denied": {strconv.FormatBool(q.Denied)}, "failed": {strconv.FormatBool(q.Failed)}}
}

func readExplainQuery(v url.Values) (q ExplainQuery, err error) {
	q.ID, q.Service, q.Last = v.Get("id"), v.Get("service"), 10
	if len(q.ID) > flight.MaxID {
		return q, bad("id has %d bytes: at most %d are taken", len(q.ID), flight.MaxID)
	}
	if s := v.Get("last"); s != "" {
		if q.Last, err = strconv.Atoi(s); err != nil || q.Last < 1 {
			return q, bad("last %.20q is not a number from 1 on", s)
		}
	}
	for name, to := range map[string]*bool{"denied": &q.Denied, "failed": &q.Failed} {
		if s := v.Get(name); s != "" {
			if *to, err = strconv.ParseBool(s); err != nil {
				return q, bad("%s %.20q is neither true nor false", name, s)
			}
		}
	}
	return q, nil
}

// serveExplain asks the proxies what they remember of a request, or of the last ones. Whoever may administer the mesh may ask.
func (a *API) serveExplain(r *http.Request) (any, error) {
	if a.cfg.Recall == nil {
		return nil, missing("what proxies remember")
	}
	q, err := readExplainQuery(r.URL.Query())
	if err != nil {
		return nil, err
	}
	// All that each remembers: what one proxy has denied, the other one has only passed on.
	found, err := a.cfg.Recall(r.Context(), flight.Question{ID: q.ID, Last: flight.MaxLast})
	if errors.Is(err, recall.ErrBusy) {
		return nil, &Error{Status: http.StatusServiceUnavailable, Message: err.Error()}
	}
	if err != nil {
		return nil, err
	}
	found.Of = q.Choose(found.Of)
	if len(found.Of) == 0 && q.Service != "" && !a.has(q.Service, "") {
		return nil, &Error{Status: http.StatusNotFound, Message: fmt.Sprintf("no request from or to %s is remembered, and there is no Service of that name: 'tulle get services' lists them", q.Service)}
	}
	found.Silent = append(found.Silent, a.elsewhere(&found)...)
	slices.SortStableFunc(found.Silent, func(a, b flight.Silent) int { return cmp.Compare(a.Workload, b.Workload) })
	return found, nil
}

// elsewhere answers the workloads whose proxies are not connected to this control plane.
func (a *API) elsewhere(found *flight.Found) (out []flight.Silent) {
	known := map[string]bool{}
	for _, name := range found.Names {
		known[name] = true
	}
	for _, w := range a.cfg.Registry.Workloads() {
		if name := w.Namespace + "/" + w.Name; !known[name] {
			known[name] = true
			out = append(out, flight.Silent{Workload: name, Why: "its proxy is not connected to this control plane: ask another one, or at its machine"})
		}
	}
	return out
}
