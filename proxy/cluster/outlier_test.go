package cluster_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/health"
)

// outlying is a cluster with one endpoint that looks for outliers.
func outlying(o *model.Outlier) (*cluster.Cluster, *cluster.Endpoint) {
	c := cluster.New(&model.Cluster{Outlier: o})
	c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Weight: 1}}})
	return c, c.Endpoints()[0]
}

// TestTrips: what counts as what, with and without counting our own side's failures apart, and what counts anew.
func TestTrips(t *testing.T) {
	// Letters: . 200, 5 500, g 503, m missed, l late, r reached, R relayed.
	for _, c := range []struct {
		events string
		split  bool
		want   string // what has tripped after each: 5, g, l or - for nothing
	}{
		{"555", false, "--5"},
		{"55.555", false, "-----5"},
		{"5g5", false, "--5"}, // three of 5xx, one of the gateway's
		{"gg", false, "-g"},
		{"g5gg", false, "--5g"},
		{"gggg", false, "-g5g"}, // each counts for both and begins anew by itself
		{"mlm", false, "-g5"},
		{"mrm", false, "--g"}, // a connection alone proves nothing
		{"mRm", false, "---"},
		{"mmm", true, "--l"},
		{"mlrmml", true, "-----l"},
		{"mRmml", true, "----l"},
		{"m5m5m5", true, "----l5"}, // apart
		{"mmgmg", true, "---lg"},
		{"55555555", false, "--5--5--"},
	} {
		o := &model.Outlier{Consecutive5xx: 3, ConsecutiveGateway: 2, ConsecutiveLocal: 3, SplitLocal: c.split}
		_, e := outlying(o)
		for i, ev := range c.events {
			switch ev {
			case '.':
				e.Answered(200)
			case '5':
				e.Answered(500)
			case 'g':
				e.Answered(503)
			case 'm', 'l':
				e.Missed(ev == 'l')
			case 'r':
				e.Reached()
			case 'R':
				e.Relayed()
			}
			got := byte('-')
			for why, letter := range map[health.Why]byte{health.Consecutive5xx: '5', health.ConsecutiveGateway: 'g', health.ConsecutiveLocal: 'l'} {
				if e.Tripped(why) {
					got = letter
				}
			}
			if got != c.want[i] {
				t.Errorf("%q, split %v: after %d events %c has tripped, want %c", c.events, c.split, i+1, got, c.want[i])
			}
		}
	}
}

// TestTripOff: a threshold of 0 is none; settings in force count; what was counted goes with them.
func TestTripOff(t *testing.T) {
	c, e := outlying(&model.Outlier{})
	for range 10 {
		e.Answered(500)
		e.Missed(false)
	}
	if e.Tripped(health.Consecutive5xx) || e.Tripped(health.ConsecutiveGateway) {
		t.Error("tripped without a threshold")
	}
	if r := e.TakeRates(); r[health.External] != (health.Rate{Total: 20}) || e.TakeRates() != [health.Rates]health.Rate{} {
		t.Errorf("rates %v", r)
	}
	e.Answered(200)
	e.Answered(500)
	if r := e.TakeRates(); r[health.External] != (health.Rate{Total: 2, Good: 1}) {
		t.Errorf("rates %v", r)
	}
	c.Set(&model.Cluster{})
	e.Answered(500)
	c.Set(&model.Cluster{Outlier: &model.Outlier{Consecutive5xx: 2, SplitLocal: true}})
	e.Reached()
	e.Missed(true)
	e.Answered(500)
	if r := e.TakeRates(); r != [health.Rates]health.Rate{{Total: 1}, {Total: 2, Good: 1}} || e.Tripped(health.Consecutive5xx) {
		t.Errorf("rates %v", r)
	}
	e.Answered(500)
	e.Forgive()
	if e.Tripped(health.Consecutive5xx) {
		t.Error("forgiven, and not forgotten")
	}
}

// TestWatch: who watches is told once of what may be much, and misses nothing.
func TestWatch(t *testing.T) {
	c, e := outlying(&model.Outlier{Consecutive5xx: 1})
	told := func() bool {
		select {
		case <-c.Watch():
			return true
		default:
			return false
		}
	}
	if told() {
		t.Error("told of nothing")
	}
	for what, f := range map[string]func(){"settings": func() { c.Set(c.Model()) }, "endpoints": func() { c.SetEndpoints(nil); c.SetEndpoints(nil) },
		"a trip": func() { e.Answered(500) }} {
		if f(); !told() || told() {
			t.Errorf("not told, or more than once, of %s", what)
		}
		e.Tripped(health.Consecutive5xx)
	}
}

// TestBornUnhealthy: where health is checked an endpoint that comes has to pass a check first; one that stays does not.
func TestBornUnhealthy(t *testing.T) {
	c := cluster.New(&model.Cluster{})
	c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Workload: "a"}}})
	c.Set(&model.Cluster{HealthChecks: []model.HealthCheck{{}}})
	c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Workload: "a"}, {Workload: "b"}}})
	if e := c.Endpoints(); e[0].Unhealthy() || !e[1].Unhealthy() {
		t.Errorf("unhealthy: %v %v", e[0].Unhealthy(), e[1].Unhealthy())
	}
}

// TestLoweredThreshold: a threshold that is lowered below what was counted holds at once.
func TestLoweredThreshold(t *testing.T) {
	c, e := outlying(&model.Outlier{Consecutive5xx: 20})
	for range 10 {
		e.Answered(500)
	}
	c.Set(&model.Cluster{Outlier: &model.Outlier{Consecutive5xx: 5}})
	e.Answered(500)
	if !e.Tripped(health.Consecutive5xx) {
		t.Error("11 responses of 500 in a row are not too many by a threshold of 5")
	}
	if e.Answered(500); e.Tripped(health.Consecutive5xx) {
		t.Error("one more is too many again")
	}
}
