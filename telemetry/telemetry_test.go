package telemetry

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write docs/reference/metrics.md")

func TestReference(t *testing.T) {
	const path = "../docs/reference/metrics.md"
	want := Reference()
	if *update {
		if err := os.MkdirAll("../docs/reference", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the table says (%v); run go test ./telemetry -update", path, err)
	}
}

func TestMetricsUseTheClosedListOfLabels(t *testing.T) {
	for _, list := range [][]Metric{Metrics(), ControlMetrics()} {
		metricsUseTheClosedListOfLabels(t, list)
	}
}

func metricsUseTheClosedListOfLabels(t *testing.T, list []Metric) {
	names := map[string]bool{}
	for _, m := range list {
		if names[m.Name] || m.Meaning == "" || m.Type == "" {
			t.Errorf("metric %q: twice, or without type or meaning", m.Name)
		}
		names[m.Name] = true
		for _, l := range m.Labels {
			if !slices.ContainsFunc(Labels[:], func(x Label) bool { return x.Name == l }) {
				t.Errorf("metric %s has label %q, which is not in the list", m.Name, l)
			}
		}
	}
}

func TestBucketIsCloseAndMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		us := rapid.Int64Range(0, maxMicros).Draw(t, "us")
		d := time.Duration(us) * time.Microsecond
		i := Bucket(d)
		if i < 0 || i >= Buckets {
			t.Fatalf("%v falls into bucket %d", d, i)
		}
		if mid := BucketMid(i); math.Abs(float64(mid-d)) > max(float64(d)/128+1, 1000) {
			t.Fatalf("%v falls into bucket %d, whose middle is %v", d, i, mid)
		}
		if j := Bucket(d + time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "more"))); j < i {
			t.Fatalf("a longer time falls into a lower bucket: %d, %d", i, j)
		}
	})
	if Bucket(-time.Second) != 0 || Bucket(math.MaxInt64) >= Buckets {
		t.Error("a time out of range has no bucket")
	}
}

// TestQuantileAgainstSorting compares with the definition, on merged halves.
func TestQuantileAgainstSorting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(1000, 10e9), 1, 200).Draw(t, "values")
		var a, b Histogram
		for i, v := range values {
			if i%2 == 0 {
				a.Observe(time.Duration(v))
			} else {
				b.Observe(time.Duration(v))
			}
		}
		a.Merge(b)
		slices.Sort(values)
		for _, q := range []float64{0, 0.5, 0.95, 0.99, 1} {
			want := values[min(int(q*float64(len(values))), len(values)-1)]
			got := a.Quantile(q)
			if math.Abs(float64(int64(got)-want)) > max(float64(want)/100, 1500) {
				t.Fatalf("quantile %v of %d values: got %v, want %v", q, len(values), got, time.Duration(want))
			}
		}
		a.Sub(b)
		if n := a.Total(); n != uint64((len(values)+1)/2) {
			t.Fatalf("after taking the second half away there are %d", n)
		}
	})
}

func TestEdgesMergeAndTravel(t *testing.T) {
	e := Edge{EdgeKey: EdgeKey{Direction: "outbound", Source: "web.default", Destination: "cart.default", Port: 80, Route: "r1", Protocol: "http", MTLS: true}, Requests: 3, Failures: 1}
	e.Latency.Observe(time.Millisecond)
	o := e
	o.Route = "r2"
	b, err := json.Marshal([]Edge{e, o})
	if err != nil {
		t.Fatal(err)
	}
	var back []Edge
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	got := MergeEdges(back, func(k *EdgeKey) { k.Route = "" })
	if len(got) != 1 || got[0].Requests != 6 || got[0].Failures != 2 || got[0].Latency.Total() != 2 || !got[0].MTLS {
		t.Fatalf("merged: %+v", got)
	}
	now := got[0]
	now.Sub(&Edge{Requests: 6, Failures: 2})
	if now.Requests != 0 || now.Failures != 0 || now.SuccessRate() != 1 {
		t.Errorf("difference to itself: %+v", now)
	}
	again := Edge{Requests: 2}
	if again.Sub(&Edge{Requests: 100}); again.Requests != 2 {
		t.Errorf("a proxy that began again: %+v", again)
	}
	if len(MergeEdges([]Edge{e, o}, nil)) != 2 {
		t.Error("two routes became one edge")
	}
}
