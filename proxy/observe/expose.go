package observe

import (
	"bufio"
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/telemetry"
	"github.com/tulle-mesh/tulle/telemetry/process"
)

// sums is one edge with the counters of all recorders added up.
type sums struct {
	telemetry.Edge
	classic  [len(telemetry.DurationBounds) + 1]uint64
	outcomes map[outcomeLabels]uint64
}

type outcomeLabels struct {
	status, grpc int
	reason       string
}

// WriteMetrics writes all metrics in Prometheus text format (version 0.0.4).
func (o *Observer) WriteMetrics(w io.Writer) error {
	x := exposition{w: bufio.NewWriter(w)}
	edges := o.sum()
	for _, m := range telemetry.Metrics() {
		switch m.Name {
		case telemetry.RequestsTotal:
			x.requests(m, edges)
		case telemetry.RequestDuration:
			x.durations(m, edges)
		case telemetry.TCPOpened:
			x.edges(m, edges, func(e *sums) uint64 { return e.Opened })
		case telemetry.TCPClosed:
			x.closed(m, edges)
		case telemetry.TCPSent:
			x.edges(m, edges, func(e *sums) uint64 { return e.Sent })
		case telemetry.TCPReceived:
			x.edges(m, edges, func(e *sums) uint64 { return e.Received })
		case telemetry.RefusedTotal:
			x.refused(m, o)
		case telemetry.AuthzDecisions, telemetry.AuthzUnanswered:
			x.decided(m, o)
		case telemetry.MirroredTotal:
			x.mirrors(m, o)
		case telemetry.BreakerOverflows:
			x.overflows(m, o.cfg.Overflows)
		case telemetry.RetriesTotal, telemetry.RetryBudgetLeft:
			x.retries(m, o.cfg.Retries)
		case telemetry.ClusterEndpoints, telemetry.HealthChecks, telemetry.Ejections:
			x.health(m, o.cfg.Health)
		case telemetry.RateLimited, telemetry.Shed, telemetry.AtWork, telemetry.ConcurrencyLimit:
			x.limits(m, o.cfg.Limits)
		case telemetry.TLSHandshakes, telemetry.TLSHandshakesShed:
			x.handshakes(m, o.cfg.Handshakes)
		case telemetry.IdentityLeft, telemetry.IdentityFailed, telemetry.TrustStage, telemetry.ClockAhead:
			x.identity(m, o.cfg.Identity)
		case telemetry.CaptureWorks, telemetry.CaptureFailed:
			x.capture(m, o.cfg.Capture)
		case telemetry.SeriesOverflow:
			x.single(m, float64(o.overflow.Load()))
		case telemetry.AccessLogDropped:
			n := o.log.dropped.Load()
			if o.cfg.Dropped != nil {
				n += o.cfg.Dropped()
			}
			x.single(m, float64(n))
		case telemetry.ControlConnected:
			if o.cfg.Connected != nil {
				up := 0.0
				if o.cfg.Connected() {
					up = 1
				}
				x.single(m, up)
			}
		default:
			if v, ok := process.Value(m.Name, o.began); ok {
				x.single(m, v)
			}
		}
	}
	return x.w.Flush()
}

// sum adds up the recorders, sorted by key.
func (o *Observer) sum() []*sums {
	byKey := map[telemetry.EdgeKey]*sums{}
	var all []*sums
	for _, r := range *o.recorders.Load() {
		for e := r.head.Load(); e != nil; e = e.next {
			k := e.key.public()
			s := byKey[k]
			if s == nil {
				s = &sums{Edge: telemetry.Edge{EdgeKey: k}, outcomes: map[outcomeLabels]uint64{}}
				byKey[k] = s
				all = append(all, s)
			}
			shot := e.snapshot()
			s.Edge.Merge(&shot)
			for i := range e.classic {
				s.classic[i] += e.classic[i].Load()
			}
			for c := e.outcomes.Load(); c != nil; c = c.next {
				s.outcomes[outcomeLabels{c.status, c.grpc, c.reason}] += c.n.Load()
			}
		}
	}
	slices.SortFunc(all, func(a, b *sums) int { return a.EdgeKey.Compare(b.EdgeKey) })
	return all
}

// exposition writes metrics; its writer keeps the first error.
type exposition struct{ w *bufio.Writer }

func (x *exposition) head(m telemetry.Metric) {
	x.w.WriteString("# HELP " + m.Name + " " + m.Meaning + "\n# TYPE " + m.Name + " " + m.Type + "\n")
}

// series writes one line; labels come in pairs.
func (x *exposition) series(name string, value float64, labels ...string) {
	x.w.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		x.w.WriteByte("{,"[min(i, 1)])
		x.w.WriteString(labels[i] + `="` + escapeLabel(labels[i+1]) + `"`)
	}
	if len(labels) > 0 {
		x.w.WriteByte('}')
	}
	x.w.WriteString(" " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

func (x *exposition) single(m telemetry.Metric, v float64) {
	x.head(m)
	x.series(m.Name, v)
}

func edgeLabels(e *sums, more ...string) []string {
	return append([]string{
		"direction", e.Direction, "source", e.Source, "destination", e.Destination, "port", strconv.Itoa(int(e.Port)),
		"route", e.Route, "backend", e.Backend, "protocol", e.Protocol, "mtls", strconv.FormatBool(e.MTLS),
	}, more...)
}

func (x *exposition) requests(m telemetry.Metric, edges []*sums) {
	x.head(m)
	for _, e := range edges {
		if e.Requests == 0 {
			continue
		}
		for _, o := range sortedOutcomes(e) {
			grpc := ""
			if o.grpc >= 0 {
				grpc = strconv.Itoa(o.grpc)
			}
			x.series(m.Name, float64(e.outcomes[o]), edgeLabels(e, "code", strconv.Itoa(o.status), "grpc_status", grpc, "reason", o.reason)...)
		}
	}
}

func (x *exposition) durations(m telemetry.Metric, edges []*sums) {
	x.head(m)
	for _, e := range edges {
		if e.Requests == 0 {
			continue
		}
		var n uint64
		for i, b := range telemetry.DurationBounds {
			n += e.classic[i]
			x.series(m.Name+"_bucket", float64(n), edgeLabels(e, "le", strconv.FormatFloat(b, 'g', -1, 64))...)
		}
		n += e.classic[len(telemetry.DurationBounds)]
		x.series(m.Name+"_bucket", float64(n), edgeLabels(e, "le", "+Inf")...)
		x.series(m.Name+"_sum", e.Latency.Sum.Seconds(), edgeLabels(e)...)
		x.series(m.Name+"_count", float64(n), edgeLabels(e)...)
	}
}

func (x *exposition) edges(m telemetry.Metric, edges []*sums, value func(*sums) uint64) {
	x.head(m)
	for _, e := range edges {
		if e.Opened > 0 {
			x.series(m.Name, float64(value(e)), edgeLabels(e)...)
		}
	}
}

func (x *exposition) closed(m telemetry.Metric, edges []*sums) {
	x.head(m)
	for _, e := range edges {
		if e.Opened == 0 {
			continue
		}
		for _, o := range sortedOutcomes(e) {
			x.series(m.Name, float64(e.outcomes[o]), edgeLabels(e, "reason", o.reason)...)
		}
	}
}

func (x *exposition) refused(m telemetry.Metric, o *Observer) {
	x.head(m)
	for _, why := range failure.All() {
		var n uint64
		for _, r := range *o.recorders.Load() {
			n += r.refused[why].Load()
		}
		if n > 0 {
			x.series(m.Name, float64(n), "reason", why.Label())
		}
	}
}

func (x *exposition) overflows(m telemetry.Metric, all func(func(cluster, priority, bound string, n uint64))) {
	if all == nil {
		return
	}
	x.head(m)
	all(func(cluster, priority, bound string, n uint64) {
		if n > 0 {
			x.series(m.Name, float64(n), "cluster", cluster, "priority", priority, "bound", bound)
		}
	})
}

func (x *exposition) retries(m telemetry.Metric, all func() []Retries) {
	if all == nil {
		return
	}
	x.head(m)
	for _, r := range all() {
		switch {
		case m.Name == telemetry.RetriesTotal:
			x.series(m.Name, float64(r.Made), "cluster", r.Cluster, "outcome", "made")
			x.series(m.Name, float64(r.Refused), "cluster", r.Cluster, "outcome", "refused")
		case r.Left >= 0:
			x.series(m.Name, float64(r.Left), "cluster", r.Cluster)
		}
	}
}

func (x *exposition) health(m telemetry.Metric, all func(string, func(cluster, value string, n uint64))) {
	if all == nil {
		return
	}
	x.head(m)
	all(m.Name, func(cluster, value string, n uint64) {
		x.series(m.Name, float64(n), m.Labels[0], cluster, m.Labels[1], value)
	})
}

func (x *exposition) limits(m telemetry.Metric, all func(string, func(float64, ...string))) {
	if all == nil {
		return
	}
	x.head(m)
	all(m.Name, func(n float64, values ...string) {
		var labels []string
		for i, v := range values {
			labels = append(labels, m.Labels[i], v)
		}
		x.series(m.Name, n, labels...)
	})
}

func (x *exposition) handshakes(m telemetry.Metric, numbers func() Handshakes) {
	if numbers == nil {
		return
	}
	x.head(m)
	n := numbers()
	values := []float64{float64(n.Computing), float64(n.Open), float64(n.Waiting)}
	names := []string{"computing", "open", "waiting"}
	if m.Name == telemetry.TLSHandshakesShed {
		values = []float64{float64(n.Refused), float64(n.Evicted), float64(n.Late)}
		names = []string{"refused", "evicted", "late"}
	}
	for i, v := range values {
		x.series(m.Name, v, m.Labels[0], names[i])
	}
}

func (x *exposition) identity(m telemetry.Metric, tell func() Identity) {
	if tell == nil {
		return
	}
	id := tell()
	switch m.Name {
	case telemetry.IdentityLeft:
		x.single(m, id.Left.Seconds())
	case telemetry.IdentityFailed:
		x.single(m, float64(id.Failed))
	case telemetry.TrustStage:
		x.single(m, float64(id.Stage))
	case telemetry.ClockAhead:
		x.single(m, id.ClockAhead.Seconds())
	}
}

func (x *exposition) capture(m telemetry.Metric, tell func() Capture) {
	if tell == nil {
		return
	}
	c := tell()
	switch {
	case !c.Tested:
	case m.Name == telemetry.CaptureFailed:
		x.single(m, float64(c.Failed))
	case c.Broken:
		x.single(m, 0)
	default:
		x.single(m, 1)
	}
}

func sortedOutcomes(e *sums) []outcomeLabels {
	all := make([]outcomeLabels, 0, len(e.outcomes))
	for o := range e.outcomes {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b outcomeLabels) int {
		return cmp.Or(cmp.Compare(a.status, b.status), cmp.Compare(a.grpc, b.grpc), cmp.Compare(a.reason, b.reason))
	})
	return all
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func escapeLabel(v string) string { return labelEscapes.Replace(strings.ToValidUTF8(v, "\uFFFD")) }
