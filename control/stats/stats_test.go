package stats_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/stats"
	"github.com/tulle-mesh/tulle/telemetry"
)

var key = telemetry.EdgeKey{Direction: "outbound", Source: "web.default", Destination: "cart.default", Port: 80, Protocol: "http", MTLS: true}

func report(t *testing.T, s *stats.Stats, workload string, n uint64, at time.Time) {
	t.Helper()
	b, err := json.Marshal([]telemetry.Edge{{EdgeKey: key, Requests: n}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Report(workload, b, at); err != nil {
		t.Fatal(err)
	}
}

func requests(t *testing.T, s *stats.Stats, window time.Duration, now time.Time) uint64 {
	t.Helper()
	edges := s.Edges(window, now)
	if len(edges) == 0 {
		return 0
	}
	if len(edges) != 1 || edges[0].EdgeKey != key {
		t.Fatalf("edges %+v", edges)
	}
	return edges[0].Requests
}

// TestWindows: rates look back as far as asked; totals survive a proxy that began again and a workload that left.
func TestWindows(t *testing.T) {
	var s stats.Stats
	begin := time.Unix(1_000_000, 0)
	at := func(sec int) time.Time { return begin.Add(time.Duration(sec) * time.Second) }
	for i := range 121 {
		report(t, &s, "default/web-1", uint64(10*i), at(i)) // ten a second
	}
	now := at(120)
	for window, want := range map[time.Duration]uint64{10 * time.Second: 100, time.Minute: 600, 0: 1200} {
		if got := requests(t, &s, window, now); got != want {
			t.Errorf("window %s: %d requests, want %d", window, got, want)
		}
	}
	report(t, &s, "default/web-2", 7, now)
	if got := requests(t, &s, 0, now); got != 1207 {
		t.Errorf("two workloads: %d", got)
	}
	report(t, &s, "default/web-1", 3, at(121)) // its proxy crashed and counts again from zero
	if got := requests(t, &s, 0, at(121)); got != 1210 {
		t.Errorf("after a crash: %d", got)
	}
	later := at(3600)
	report(t, &s, "default/web-2", 7, later) // web-1 is long gone
	if got := requests(t, &s, 0, later); got != 1210 {
		t.Errorf("after a departure: %d", got)
	}
	if got := requests(t, &s, 10*time.Second, later); got != 7 {
		t.Errorf("window after a departure: %d", got)
	}
	if err := s.Report("default/web-3", []byte("{"), later); err == nil {
		t.Error("an unreadable report was taken")
	}
}

// TestBound: a proxy that begins again with other edges every time does not fill the memory.
func TestBound(t *testing.T) {
	var s stats.Stats
	now := time.Unix(1_000_000, 0)
	for round := range 8 {
		var edges []telemetry.Edge
		for i := range 4096 {
			k := key
			k.Source, k.Destination = fmt.Sprint("x", round), fmt.Sprint("y", i)
			edges = append(edges, telemetry.Edge{EdgeKey: k, Requests: 1})
		}
		b, err := json.Marshal(edges)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Report("default/liar-1", b, now.Add(time.Duration(round)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.Edges(0, now)); n > 5*4096 {
		t.Errorf("%d edges are kept", n)
	}
}
