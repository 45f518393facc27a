package telemetry

import (
	"cmp"
	"slices"
	"time"
)

// EdgeKey is what makes an edge. Names are "reviews.default", Outside for what is not in the mesh, and Other
// for what is over the series budget.
type EdgeKey struct {
	Direction   string `json:"direction"` // "outbound" or "inbound"
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Port        uint16 `json:"port"`
	Route       string `json:"route,omitempty"`
	Backend     string `json:"backend,omitempty"` // outbound: the Service that the route chose
	Protocol    string `json:"protocol"`
	MTLS        bool   `json:"mtls"`
}

// Edge is what one proxy has seen on one edge since it began, all counts cumulative. Edges of one key merge,
// whoever counted them. Not safe for concurrent use.
type Edge struct {
	EdgeKey
	Requests uint64    `json:"requests"`
	Failures uint64    `json:"failures"` // status 5xx, a gRPC status that says the server failed, or a reason whose side is not downstream
	Latency  Histogram `json:"latency"`  // head of the request complete → end of the response

	Opened   uint64 `json:"opened,omitempty"` // TCP connections
	Closed   uint64 `json:"closed,omitempty"`
	Sent     uint64 `json:"sent,omitempty"`     // bytes from the caller to the server
	Received uint64 `json:"received,omitempty"` // bytes from the server to the caller
}

// Merge adds the counts of o; the keys are the caller's business.
func (e *Edge) Merge(o *Edge) {
	e.Requests += o.Requests
	e.Failures += o.Failures
	e.Opened += o.Opened
	e.Closed += o.Closed
	e.Sent += o.Sent
	e.Received += o.Received
	e.Latency.Merge(o.Latency)
}

// Sub takes away an earlier snapshot of the same edge, for rates over the time between. If the proxy began
// again between them (the earlier has more) what is there stays.
func (e *Edge) Sub(o *Edge) {
	if o.Requests > e.Requests || o.Opened > e.Opened {
		return
	}
	e.Requests -= o.Requests
	e.Failures -= min(o.Failures, e.Failures)
	e.Opened -= o.Opened
	e.Closed -= min(o.Closed, e.Closed)
	e.Sent -= min(o.Sent, e.Sent)
	e.Received -= min(o.Received, e.Received)
	e.Latency.Sub(o.Latency)
}

// Quantile answers a quantile of the latency, 0 if there were no requests.
func (e *Edge) Quantile(q float64) time.Duration { return e.Latency.Quantile(q) }

// SuccessRate answers the share of requests that did not fail, 1 if there were none.
func (e *Edge) SuccessRate() float64 {
	if e.Requests == 0 {
		return 1
	}
	return 1 - float64(e.Failures)/float64(e.Requests)
}

// MergeEdges merges edges of the same key, after by has had the chance to change each key (for example to
// drop the route); nil keeps the keys. The answer is sorted by key.
func MergeEdges(edges []Edge, by func(*EdgeKey)) []Edge {
	merged := map[EdgeKey]*Edge{}
	for i := range edges {
		k := edges[i].EdgeKey
		if by != nil {
			by(&k)
		}
		m := merged[k]
		if m == nil {
			m = &Edge{EdgeKey: k}
			merged[k] = m
		}
		m.Merge(&edges[i])
	}
	out := make([]Edge, 0, len(merged))
	for _, m := range merged {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b Edge) int { return a.EdgeKey.Compare(b.EdgeKey) })
	return out
}

// Compare orders keys by source, destination, port, route, backend, direction, protocol and mTLS.
func (k EdgeKey) Compare(o EdgeKey) int {
	m := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(k.Source, o.Source), cmp.Compare(k.Destination, o.Destination), cmp.Compare(k.Port, o.Port),
		cmp.Compare(k.Route, o.Route), cmp.Compare(k.Backend, o.Backend), cmp.Compare(k.Direction, o.Direction), cmp.Compare(k.Protocol, o.Protocol), cmp.Compare(m(k.MTLS), m(o.MTLS)))
}
