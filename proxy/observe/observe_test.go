package observe_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/telemetry"
)

func name(s string) model.ServiceName { return model.ServiceName{Namespace: "default", Name: s} }

func exchange(source, destination string, status int, took time.Duration) *record.Record {
	r := &record.Record{}
	r.Reset()
	r.Source, r.Destination, r.Port, r.Protocol, r.MTLS = name(source), name(destination), 80, model.ProtocolHTTP, true
	r.Route, r.Status, r.Start, r.End = "HTTPRoute/default/x", status, time.Second, time.Second+took
	return r
}

// scrape reads the exposition back: series as written → value. It holds every line to the format.
func scrape(t *testing.T, o *observe.Observer) map[string]float64 {
	t.Helper()
	var b bytes.Buffer
	if err := o.WriteMetrics(&b); err != nil {
		t.Fatal(err)
	}
	series := regexp.MustCompile(`^([a-z_]+)(\{([a-z_]+="(\\.|[^"\\\n])*",?)+\})? (\S+)$`)
	got := map[string]float64{}
	typed := map[string]bool{}
	for s := bufio.NewScanner(&b); s.Scan(); {
		if f := strings.Fields(s.Text()); f[0] == "#" {
			typed[f[2]] = typed[f[2]] || f[1] == "TYPE"
			continue
		}
		m := series.FindStringSubmatch(s.Text())
		if m == nil {
			t.Fatalf("not in the format: %s", s.Text())
		}
		base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(m[1], "")
		if !typed[m[1]] && !typed[base] {
			t.Errorf("no TYPE before %s", m[1])
		}
		v, err := strconv.ParseFloat(m[5], 64)
		if _, twice := got[m[1]+m[2]]; err != nil || twice {
			t.Fatalf("bad value, or twice: %s", s.Text())
		}
		got[m[1]+m[2]] = v
	}
	return got
}

const edge = `direction="outbound",source="web.default",destination="cart.default",port="80",route="HTTPRoute/default/x",backend="",protocol="http",mtls="true"`

func TestRequests(t *testing.T) {
	o := observe.New(observe.Config{})
	defer o.Close()
	a, b := o.Recorder(), o.Recorder()
	a.Done(exchange("web", "cart", 200, 2*time.Millisecond))
	b.Done(exchange("web", "cart", 200, 3*time.Millisecond))
	bad := exchange("web", "cart", 503, time.Millisecond)
	bad.Reason = failure.ConnectFailed.Label()
	b.Done(bad)
	b.Refused(failure.UnknownPort)
	m := scrape(t, o)
	for series, want := range map[string]float64{
		`tulle_requests_total{` + edge + `,code="200",grpc_status="",reason=""}`:               2,
		`tulle_requests_total{` + edge + `,code="503",grpc_status="",reason="connect_failed"}`: 1,
		`tulle_request_duration_seconds_bucket{` + edge + `,le="0.0005"}`:                      0,
		`tulle_request_duration_seconds_bucket{` + edge + `,le="0.001"}`:                       1,
		`tulle_request_duration_seconds_bucket{` + edge + `,le="0.0025"}`:                      2,
		`tulle_request_duration_seconds_bucket{` + edge + `,le="+Inf"}`:                        3,
		`tulle_request_duration_seconds_count{` + edge + `}`:                                   3,
		`tulle_request_duration_seconds_sum{` + edge + `}`:                                     0.006,
		`tulle_refused_total{reason="unknown_port"}`:                                           1,
	} {
		if got, there := m[series]; got != want || !there {
			t.Errorf("%s = %v (%v), want %v", series, got, there, want)
		}
	}
	for _, process := range []string{"process_resident_memory_bytes", "tulle_process_private_memory_bytes", "process_open_fds", "go_goroutines", "go_memory_heap_objects_bytes"} {
		if m[process] <= 0 {
			t.Errorf("%s = %v", process, m[process])
		}
	}
	edges := o.Edges()
	if len(edges) != 1 || edges[0].Requests != 3 || edges[0].Failures != 1 || edges[0].Source != "web.default" || !edges[0].MTLS {
		t.Fatalf("edges: %+v", edges)
	}
	if q := edges[0].Quantile(0.5); q < 1950*time.Microsecond || q > 2050*time.Microsecond {
		t.Errorf("p50 is %v", q)
	}
}

// TestEverySeriesIsInTheTable: no metric or label that telemetry does not know, and none that it promises is
// missing.
func TestEverySeriesIsInTheTable(t *testing.T) {
	o := observe.New(observe.Config{Connected: func() bool { return true }, Limits: func(metric string, tell func(float64, ...string)) {
		for _, m := range telemetry.Metrics() {
			if m.Name == metric {
				tell(7, []string{"80", "x", "true"}[:len(m.Labels)]...)
			}
		}
	}, Retries: func() []observe.Retries {
		return []observe.Retries{{Cluster: "a", Made: 3, Refused: 1, Left: 2}, {Cluster: "b", Made: 1, Left: -1}}
	}, Overflows: func(tell func(cluster, priority, bound string, n uint64)) {
		tell("a", "high", "requests", 1)
	}, Health: func(_ string, tell func(cluster, value string, n uint64)) { tell("c", "v", 1) },
		Handshakes: func() observe.Handshakes {
			return observe.Handshakes{Computing: 1, Open: 2, Waiting: 3, Refused: 4, Evicted: 5, Late: 6}
		},
		Capture: func() observe.Capture { return observe.Capture{Tested: true, Failed: 8} },
		Identity: func() observe.Identity {
			return observe.Identity{Left: time.Hour, Failed: 2, Stage: 3, ClockAhead: -time.Second}
		},
		Dropped: func() uint64 { return 7 }})
	defer o.Close()
	r := o.Recorder()
	r.Done(exchange("web", "cart", 200, time.Millisecond))
	r.Done(&record.Record{TCP: true})
	r.Refused(failure.OwnPort)
	decided := exchange("web", "cart", 200, time.Millisecond)
	decided.Decision = record.Decision{Verdict: record.Allowed, Action: model.ActionAllow, Policy: "a", Dry: record.Denied, DryPolicy: "d", Audit: "w"}
	r.Done(decided)
	relayed, flow := &record.Record{TCP: true, Decision: decided.Decision}, &observe.Flow{}
	r.Opened(relayed, flow)
	relayed.Decision = record.Decision{Verdict: record.Denied, Absent: true}
	r.Closed(relayed, flow)
	agreed := exchange("web", "cart", 200, time.Millisecond)
	agreed.Decision = record.Decision{Verdict: record.Allowed, Action: model.ActionAllow, Policy: "b", Rule: "r", Word: record.Agreed, External: "x", ExternalRule: "y"}
	r.Done(agreed)
	agreed.Decision = record.Decision{Verdict: record.Allowed, Action: model.ActionExternal, Policy: "x", Rule: "y", Word: record.Unanswered, External: "x", ExternalRule: "y"}
	r.Done(agreed)
	copied := exchange("web", "shadow", 200, time.Millisecond)
	copied.Mirror = true
	r.Done(copied)
	r.Done(copied)
	all := scrape(t, o)
	if n := all[`tulle_mirrored_requests_total{destination="shadow.default",port="80",code="200",reason=""}`]; n != 2 || len(o.Edges()) != 2 {
		t.Errorf("%v copies, %d edges: copies are counted apart", n, len(o.Edges()))
	}
	for series, want := range map[string]float64{`tulle_tls_handshakes{state="open"}`: 2, `tulle_tls_handshakes{state="waiting"}`: 3,
		`tulle_tls_handshakes_shed_total{shed="refused"}`: 4, `tulle_tls_handshakes_shed_total{shed="late"}`: 6, "tulle_access_log_dropped_total": 7,
		`tulle_authz_decisions_total{action="allow",verdict="allowed",policy="a",rule=""}`:     2,
		`tulle_authz_decisions_total{action="dry_run",verdict="denied",policy="d",rule=""}`:    2,
		`tulle_authz_decisions_total{action="audit",verdict="audited",policy="w",rule=""}`:     2,
		`tulle_authz_decisions_total{action="absent",verdict="denied",policy="",rule=""}`:      1,
		`tulle_authz_decisions_total{action="allow",verdict="allowed",policy="b",rule="r"}`:    1,
		`tulle_authz_decisions_total{action="external",verdict="allowed",policy="x",rule="y"}`: 2,
		`tulle_authz_unanswered_total{policy="x",rule="y"}`:                                    1} {
		if all[series] != want {
			t.Errorf("%s is %v, want %v", series, all[series], want)
		}
	}
	seen := map[string]bool{}
	label := regexp.MustCompile(`([a-z_]+)="`)
	for s := range scrape(t, o) {
		metric, labels, _ := strings.Cut(s, "{")
		i := slices.IndexFunc(telemetry.Metrics(), func(m telemetry.Metric) bool {
			return m.Name == metric || m.Type == "histogram" && strings.HasPrefix(metric, m.Name+"_")
		})
		if i < 0 {
			t.Errorf("metric %s is not in the table", metric)
			continue
		}
		m := telemetry.Metrics()[i]
		seen[m.Name] = true
		for _, l := range label.FindAllStringSubmatch(labels, -1) {
			if !slices.Contains(m.Labels, l[1]) {
				t.Errorf("label %s of %s is not in the table", l[1], metric)
			}
		}
	}
	for _, m := range telemetry.Metrics() {
		if !seen[m.Name] {
			t.Errorf("metric %s is in the table and nowhere else", m.Name)
		}
	}
}

func TestWhatIsAFailure(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(*record.Record)
		want   uint64
	}{
		{"200", func(r *record.Record) {}, 0},
		{"404 of the workload", func(r *record.Record) { r.Status = 404 }, 0},
		{"500 of the workload", func(r *record.Record) { r.Status = 500 }, 1},
		{"no route", func(r *record.Record) { r.Status, r.Reason = 404, "no_route" }, 1},
		{"client went away", func(r *record.Record) { r.Status, r.Reason = 0, "downstream_gone" }, 0},
		{"gRPC NOT_FOUND", func(r *record.Record) { r.GRPC = 5 }, 0},
		{"gRPC UNAVAILABLE", func(r *record.Record) { r.GRPC = 14 }, 1},
	} {
		o := observe.New(observe.Config{})
		r := exchange("web", "cart", 200, 0)
		c.change(r)
		o.Recorder().Done(r)
		if got := o.Edges()[0].Failures; got != c.want {
			t.Errorf("%s: %d failures, want %d", c.what, got, c.want)
		}
		o.Close()
	}
}

func TestTCP(t *testing.T) {
	o := observe.New(observe.Config{})
	defer o.Close()
	c := o.Recorder()
	r := &record.Record{TCP: true, Source: name("shop"), Destination: name("db"), Port: 5432, MTLS: true}
	var f observe.Flow
	c.Opened(r, &f)
	f.Moved(100, 0)
	f.Moved(150, 50)
	if e := o.Edges()[0]; e.Opened != 1 || e.Closed != 0 || e.Sent != 150 || e.Received != 50 || e.Protocol != "tcp" {
		t.Errorf("while it lasts: %+v", e)
	}
	r.RequestBytes, r.ResponseBytes = 200, 1000
	c.Closed(r, &f)
	c.Done(r) // another one, told only at its end
	if e := o.Edges()[0]; e.Opened != 2 || e.Closed != 2 || e.Sent != 400 || e.Received != 2000 || e.Requests != 0 {
		t.Errorf("at the end: %+v", e)
	}
	m := scrape(t, o)
	l := `direction="outbound",source="shop.default",destination="db.default",port="5432",route="",backend="",protocol="tcp",mtls="true"`
	if m["tulle_tcp_connections_opened_total{"+l+"}"] != 2 || m["tulle_tcp_connections_closed_total{"+l+`,reason=""}`] != 2 || m["tulle_tcp_received_bytes_total{"+l+"}"] != 2000 {
		t.Errorf("metrics: %v", m)
	}
}

func TestBudget(t *testing.T) {
	o := observe.New(observe.Config{Budget: 20})
	defer o.Close()
	a, b := o.Recorder(), o.Recorder()
	for i := range 1000 {
		a.Done(exchange("web", fmt.Sprint("s", i), 200, time.Millisecond))
		b.Done(exchange("web", "cart", 200+i%300, time.Millisecond))
	}
	var requests uint64
	for _, e := range o.Edges() {
		requests += e.Requests
	}
	m := scrape(t, o)
	n := 0
	var counted float64
	for s, v := range m {
		if strings.HasPrefix(s, "tulle_requests_total{") {
			n++
			counted += v
		}
	}
	if requests != 2000 || counted != 2000 || n > 2*20+2 || m["tulle_series_overflow_total"] == 0 {
		t.Errorf("%d requests in edges, %v in %d series, overflow %v", requests, counted, n, m["tulle_series_overflow_total"])
	}
	if !slices.ContainsFunc(o.Edges(), func(e telemetry.Edge) bool { return e.Destination == telemetry.Other && e.Requests > 900 }) {
		t.Error("what is over the budget is not under other")
	}
}

func TestLabelsAreEscaped(t *testing.T) {
	o := observe.New(observe.Config{})
	defer o.Close()
	r := exchange("web", "cart", 200, 0)
	r.Route = "a\"b\\c\nd\xff"
	o.Recorder().Done(r)
	scrape(t, o) // holds the format
}

// TestScrapeWhileCounting is for the race detector.
func TestScrapeWhileCounting(t *testing.T) {
	o := observe.New(observe.Config{})
	defer o.Close()
	var wg sync.WaitGroup
	for w := range 2 {
		c := o.Recorder()
		wg.Go(func() {
			for i := range 5000 {
				c.Done(exchange("web", fmt.Sprint("s", (i+w)%7), 200+i%3, time.Duration(i)*time.Microsecond))
			}
		})
	}
	for range 20 {
		scrape(t, o)
	}
	wg.Wait()
	var n uint64
	for _, e := range o.Edges() {
		n += e.Requests
	}
	if n != 10000 {
		t.Errorf("%d of 10000 were counted", n)
	}
}

func TestDoneDoesNotAllocate(t *testing.T) {
	o := observe.New(observe.Config{})
	defer o.Close()
	c := o.Recorder()
	a, b := exchange("web", "cart", 200, time.Millisecond), exchange("web", "user", 404, time.Millisecond)
	c.Done(a)
	c.Done(b)
	if n := testing.AllocsPerRun(1000, func() { c.Done(a); c.Done(b) }); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}

// lines collects what the access log writes.
type lines struct {
	mu   sync.Mutex
	all  []string
	hold chan struct{} // if not nil, every write waits for it
}

func (l *lines) Write(p []byte) (int, error) {
	if l.hold != nil {
		<-l.hold
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	return len(p), nil
}

func full() *record.Record {
	r := exchange("web", "cart", 200, 2500*time.Microsecond)
	r.Wall = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	r.Head, r.GRPC, r.Reason, r.Rule = r.Start+time.Millisecond, 14, "upstream_reset", 2
	r.SourceID, r.DestinationID = "spiffe://tulle.local/ns/default/sa/web", "spiffe://tulle.local/ns/default/sa/cart"
	r.Wanted = netip.MustParseAddrPort("198.18.0.5:80")
	r.Backend = model.PortName{Service: name("cart-v2"), Port: 80}
	r.Method, r.Path, r.Authority, r.RequestID = "GET", []byte("/a?\"\\\x01\xffé\u2028"), []byte("cart"), []byte("id")
	r.Decision = record.Decision{Verdict: record.Denied, Policy: "p", Rule: "r", Nearest: "n", Dry: record.Allowed, DryPolicy: "d", DryRule: "dr", Audit: "a", AuditRule: "ar",
		Word: record.Objected, Authorizer: model.PortName{Service: name("auth"), Port: 9000}, External: "p", ExternalRule: "r", Refusal: record.Refusal{By: "b", Issuer: "i", Cause: "c"}}
	r.NAttempts, r.RequestBytes, r.ResponseBytes = 6, 1, 2
	for i := range r.Attempts {
		r.Attempts[i] = record.Attempt{Workload: "cart-1", Address: netip.MustParseAddrPort("127.0.0.1:2"), From: 3, Reason: "connect_failed", Start: 1, End: 1000001}
	}
	return r
}

func TestAccessLog(t *testing.T) {
	var w lines
	o := observe.New(observe.Config{AccessLog: &w})
	c := o.Recorder()
	c.Done(full())
	o.AccessLog(true)
	one := full()
	one.Mirror = true
	c.Done(one)
	c.Done(&record.Record{TCP: true, RequestBytes: 7})
	o.AccessLog(false)
	c.Done(full())
	o.Close()
	if len(w.all) != 2 {
		t.Fatalf("%d lines, want the two made while it was on", len(w.all))
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(w.all[0]), &m); err != nil || !strings.HasSuffix(w.all[0], "}\n") {
		t.Fatalf("%v in %s", err, w.all[0])
	}
	for _, f := range telemetry.LogFields {
		if _, there := m[f.Name]; !there {
			t.Errorf("field %s is in the table but not in the line", f.Name)
		}
		delete(m, f.Name)
	}
	if len(m) > 0 {
		t.Errorf("fields that are not in the table: %v", m)
	}
	if err := json.Unmarshal([]byte(w.all[0]), &m); err != nil {
		t.Fatal(err)
	}
	if m["path"] != "/a?\"\\\x01\uFFFDé\u2028" || m["time"] != "2026-01-02T03:04:05.678901Z" || m["duration_ms"] != 2.5 || m["more_attempts"] != 2.0 || len(m["attempts"].([]any)) != 4 {
		t.Errorf("line: %s", w.all[0])
	}
	if err := json.Unmarshal([]byte(w.all[1]), &m); err != nil || m["request_bytes"] != 7.0 {
		t.Errorf("%v in %s", err, w.all[1])
	}
}

func TestAccessLogNeverWaits(t *testing.T) {
	w := lines{hold: make(chan struct{})}
	o := observe.New(observe.Config{AccessLog: &w, LogOn: true, LogQueue: 4})
	c := o.Recorder()
	for range 100 {
		c.Done(full())
	}
	dropped := scrape(t, o)["tulle_access_log_dropped_total"]
	if dropped < 94 || dropped > 96 {
		t.Errorf("%v dropped, want all but the queue of 4 and the one being written", dropped)
	}
	close(w.hold)
	o.Close()
	if len(w.all)+int(dropped) != 100 {
		t.Errorf("%d written, %v dropped", len(w.all), dropped)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("/a?b", "\xff\xfe\"")
	f.Fuzz(func(t *testing.T, path, id string) {
		var w lines
		o := observe.New(observe.Config{AccessLog: &w, LogOn: true})
		r := full()
		r.Path, r.RequestID, r.Route = []byte(path), []byte(id), path
		o.Recorder().Done(r)
		o.Close()
		var m map[string]any
		if err := json.Unmarshal([]byte(w.all[0]), &m); err != nil || strings.Count(w.all[0], "\n") != 1 {
			t.Fatalf("%v in %q", err, w.all[0])
		}
		if want := strings.ToValidUTF8(path, "\uFFFD"); path != "" && !strings.Contains(path, "\xff") && want == path && m["path"] != path {
			t.Fatalf("path %q became %q", path, m["path"])
		}
	})
}

func BenchmarkDone(b *testing.B) {
	o := observe.New(observe.Config{})
	defer o.Close()
	c := o.Recorder()
	x, y := exchange("web", "cart", 200, time.Millisecond), exchange("web", "user", 200, time.Millisecond)
	b.ReportAllocs()
	for b.Loop() {
		c.Done(x)
		c.Done(y)
	}
}
