package cli

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tulle-mesh/tulle/examples/shop"
	"github.com/tulle-mesh/tulle/telemetry"
)

// demoResult is the JSON document of `tulle demo --json`.
type demoResult struct {
	Edges []demoEdge `json:"edges"`
}

// demoEdge is one edge as its caller's proxy saw it. For plain TCP a request is a connection.
type demoEdge struct {
	Source      string  `json:"source"`
	Destination string  `json:"destination"`
	Protocol    string  `json:"protocol"`
	Requests    uint64  `json:"requests"`
	Failures    uint64  `json:"failures"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	MTLS        bool    `json:"mtls"`            // all of it
	Bytes       uint64  `json:"bytes,omitempty"` // plain TCP: both ways
}

// summarize turns cumulative edges of all proxies into one line per edge, sorted; only the callers' side counts, so
// that no request is counted twice.
func summarize(edges []telemetry.Edge) demoResult {
	type key struct{ source, destination string }
	sum := map[key]*demoEdge{}
	latency := map[key]*telemetry.Edge{}
	for i := range edges {
		e := &edges[i]
		if e.Direction != "outbound" {
			continue
		}
		k := key{bare(e.Source), bare(e.Destination)}
		if sum[k] == nil {
			sum[k] = &demoEdge{Source: k.source, Destination: k.destination, Protocol: e.Protocol, MTLS: true}
			latency[k] = &telemetry.Edge{}
		}
		d := sum[k]
		d.Requests += e.Requests + e.Opened
		d.Failures += e.Failures
		d.Bytes += e.Sent + e.Received
		d.MTLS = d.MTLS && (e.MTLS || e.Requests+e.Opened == 0)
		latency[k].Merge(e)
	}
	out := demoResult{Edges: []demoEdge{}}
	for k, d := range sum {
		d.P50, d.P99 = ms(latency[k].Quantile(0.5)), ms(latency[k].Quantile(0.99))
		out.Edges = append(out.Edges, *d)
	}
	slices.SortFunc(out.Edges, func(a, b demoEdge) int {
		return strings.Compare(a.Source+"\x00"+a.Destination, b.Source+"\x00"+b.Destination)
	})
	return out
}

// bare answers "cart" for "cart.default".
func bare(name string) string {
	b, _, _ := strings.Cut(name, ".")
	return b
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// missing answers the edges of the shop that have carried nothing.
func (r demoResult) missing() []string {
	var out []string
	for _, want := range shop.Edges() {
		if !slices.ContainsFunc(r.Edges, func(e demoEdge) bool {
			return e.Source == want.Source && e.Destination == want.Destination && e.Requests > 0
		}) {
			out = append(out, want.Source+" → "+want.Destination)
		}
	}
	return out
}

// verdict is nil only if every edge of the shop carried traffic, all of it mTLS, and none failed.
func (r demoResult) verdict() error {
	if m := r.missing(); len(m) > 0 {
		return fmt.Errorf("no traffic on: %s", strings.Join(m, ", "))
	}
	for _, e := range r.Edges {
		switch {
		case e.Failures > 0:
			return fmt.Errorf("%s → %s: %d of %d requests failed", e.Source, e.Destination, e.Failures, e.Requests)
		case !e.MTLS:
			return fmt.Errorf("%s → %s: not all of it was mTLS", e.Source, e.Destination)
		}
	}
	return nil
}

func (r demoResult) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SOURCE\tDESTINATION\tPROTOCOL\tREQUESTS\tFAILURES\tP50\tP99\tMTLS")
	for _, e := range r.Edges {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%.1f ms\t%.1f ms\t%v\n", e.Source, e.Destination, e.Protocol, e.Requests, e.Failures, e.P50, e.P99, e.MTLS)
	}
	w.Flush()
	return b.String()
}
