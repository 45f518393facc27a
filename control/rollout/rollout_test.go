package rollout_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/rollout"
	"github.com/tulle-mesh/tulle/telemetry"
)

var target = v1alpha1.PolicyTarget{Group: v1alpha1.GatewayGroup, Kind: "HTTPRoute", Name: "reviews", SectionName: "main"}

func spec(change func(*v1alpha1.Rollout)) *v1alpha1.Rollout {
	p := &v1alpha1.TrafficPolicy{Spec: v1alpha1.TrafficPolicySpec{TrafficParts: v1alpha1.TrafficParts{Rollout: &v1alpha1.Rollout{Canary: "reviews-v2"}}}}
	if change != nil {
		change(p.Spec.Rollout)
	}
	v1alpha1.Default(p)
	return p.Spec.Rollout
}

// version is how good a backend is.
type version struct {
	fails float64
	slow  float64 // share that takes 400 ms instead of 20
}

// world sends rate requests a second for as long as it is asked to, by the weights that were decided, and answers how it ended,
// when, and how many requests of the canary failed. What is stored goes through its stored form each time, as with a control plane
// that is restarted every second.
func world(r *v1alpha1.Rollout, canary, stable version, rate int, least time.Duration, seed uint64) (s rollout.State, ended time.Duration, failed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	now := time.Unix(1e9, 0)
	begin := now
	var seen rollout.Seen
	for now.Sub(begin) < least {
		next := rollout.Decide(target, r, s, seen, now)
		if !next.Began.Equal(s.Began) {
			seen = rollout.Seen{}
		}
		text, _ := json.Marshal(next)
		s = rollout.State{}
		if err := json.Unmarshal(text, &s); err != nil {
			panic(err)
		}
		if s.Phase != rollout.Progressing {
			return s, now.Sub(begin), failed
		}
		for range rate {
			v, c := stable, &seen.Stable
			if random.IntN(100) < int(rollout.Weight(target, r, s)) {
				v, c = canary, &seen.Canary
			}
			c.Requests++
			if random.Float64() < v.fails {
				c.Failures++
				if c == &seen.Canary {
					failed++
				}
			}
			took := 20 * time.Millisecond
			if random.Float64() < v.slow {
				took = 400 * time.Millisecond
			}
			c.Latency.Observe(took)
		}
		now = now.Add(time.Second)
	}
	return s, now.Sub(begin), failed
}

// TestWorlds: who is good gets everything, who is not goes back, over many seeds; a few failures do not decide.
func TestWorlds(t *testing.T) {
	factor := 1.5
	bounded := func(r *v1alpha1.Rollout) { r.Latency = &v1alpha1.RolloutLatency{Most: "300ms"} }
	compared := func(r *v1alpha1.Rollout) { r.Latency = &v1alpha1.RolloutLatency{Factor: &factor} }
	tests := map[string]struct {
		change         func(*v1alpha1.Rollout)
		canary, stable version
		want           rollout.Phase
		of             int // seeds out of 25 that must end so, at least
	}{
		"as good":             {nil, version{fails: 0.002}, version{fails: 0.002}, rollout.Completed, 24},
		"perfect":             {nil, version{}, version{}, rollout.Completed, 25},
		"broken":              {nil, version{fails: 1}, version{}, rollout.RolledBack, 25},
		"a tenth fails":       {nil, version{fails: 0.1}, version{}, rollout.RolledBack, 25},
		"3 % fail":            {nil, version{fails: 0.03}, version{}, rollout.RolledBack, 24},
		"both fail":           {nil, version{fails: 0.1}, version{fails: 0.1}, rollout.RolledBack, 25}, // success.least
		"slow":                {bounded, version{slow: 0.1}, version{slow: 0.1}, rollout.RolledBack, 25},
		"slower than stable":  {compared, version{slow: 0.1}, version{}, rollout.RolledBack, 24},
		"as slow":             {compared, version{slow: 0.1}, version{slow: 0.1}, rollout.Completed, 25},
		"rarely slow, though": {bounded, version{slow: 0.003}, version{}, rollout.Completed, 24},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := 0
			for seed := range uint64(25) {
				if s, _, _ := world(spec(test.change), test.canary, test.stable, 50, time.Hour, seed); s.Phase == test.want {
					n++
				}
			}
			if n < test.of {
				t.Errorf("%d of 25 are %s, not %d", n, test.want, test.of)
			}
		})
	}
}

// TestBroken: what fails always is gone within few requests, and none of a good one's steps is shorter than its interval.
func TestBroken(t *testing.T) {
	for seed := range uint64(10) {
		if _, _, failed := world(spec(nil), version{fails: 1}, version{}, 50, time.Hour, seed); failed > 20 {
			t.Errorf("seed %d: %d requests failed before it went back", seed, failed)
		}
		if _, took, _ := world(spec(nil), version{}, version{}, 200, time.Hour, seed); took < 4*time.Minute || took > 5*time.Minute {
			t.Errorf("seed %d: four steps of a minute took %s", seed, took)
		}
	}
}

// TestFew: without requests nothing happens; one failure of one request decides nothing.
func TestFew(t *testing.T) {
	r, now := spec(nil), time.Unix(1e9, 0)
	s := rollout.Decide(target, r, rollout.State{}, rollout.Seen{}, now)
	for range 1000 {
		now = now.Add(time.Minute)
		s = rollout.Decide(target, r, s, rollout.Seen{Canary: rollout.Counts{Requests: 1, Failures: 1}, Stable: rollout.Counts{Requests: 30}}, now)
	}
	if s.Phase != rollout.Progressing || s.Step != 0 || s.Reason != "TooFewRequests" || rollout.Weight(target, r, s) != 5 {
		t.Errorf("%+v", s)
	}
}

// TestBlind: nothing goes on while what a proxy sees is not known, and after a while the canary goes back.
func TestBlind(t *testing.T) {
	r, now := spec(nil), time.Unix(1e9, 0)
	s := rollout.Decide(target, r, rollout.State{}, rollout.Seen{}, now)
	good := rollout.Seen{Canary: rollout.Counts{Requests: 1000}, Stable: rollout.Counts{Requests: 1000}}
	blind := good
	blind.Blind = "default/web"
	now = now.Add(time.Hour)
	if s = rollout.Decide(target, r, s, blind, now); s.Step != 0 || s.Reason != "Blind" || !strings.Contains(s.Message, "default/web") {
		t.Errorf("%+v", s)
	}
	if seeing := rollout.Decide(target, r, s, good, now.Add(time.Minute)); seeing.Step != 1 || !seeing.Blind.IsZero() {
		t.Errorf("%+v", seeing)
	}
	s = rollout.Decide(target, r, s, blind, now.Add(time.Minute+time.Second))
	if s.Phase != rollout.RolledBack || rollout.Weight(target, r, s) != 0 {
		t.Errorf("%+v", s)
	}
	if again := rollout.Decide(target, r, s, good, now.Add(time.Hour)); again != s {
		t.Errorf("it came back by itself: %+v", again)
	}
	other := spec(func(r *v1alpha1.Rollout) { r.Revision = "2" })
	if anew := rollout.Decide(target, other, s, good, now.Add(time.Hour)); anew.Phase != rollout.Progressing || anew.Step != 0 || rollout.Weight(target, other, s) != 5 {
		t.Errorf("another spec: %+v", anew)
	}
}

// TestProperties: whatever is seen, the step never goes down but to nothing, goes up by one at most, not before its time and without its
// requests; more failures of the canary never lead further; deciding the same again changes nothing.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := spec(func(r *v1alpha1.Rollout) {
			least, worse := rapid.Float64Range(0, 100).Draw(t, "least"), rapid.Float64Range(0, 100).Draw(t, "worse")
			r.Success = &v1alpha1.RolloutSuccess{Least: &least, Worse: &worse}
			if rapid.Bool().Draw(t, "latency") {
				r.Latency = &v1alpha1.RolloutLatency{Most: "10ms"}
			}
		})
		counts := func(name string) (c rollout.Counts) {
			c.Requests = rapid.Uint64Range(0, 2000).Draw(t, name)
			c.Failures = rapid.Uint64Range(0, c.Requests).Draw(t, name+" failures")
			slow := rapid.Uint64Range(0, c.Requests).Draw(t, name+" slow")
			c.Latency.Append(telemetry.Bucket(5*time.Millisecond), c.Requests-slow)
			c.Latency.Append(telemetry.Bucket(50*time.Millisecond), slow)
			return c
		}
		now := time.Unix(1e9, 0)
		s := rollout.Decide(target, r, rollout.State{}, rollout.Seen{}, now)
		s.Step = rapid.IntRange(0, 3).Draw(t, "step")
		lasted := time.Duration(rapid.IntRange(0, 1200).Draw(t, "lasted")) * time.Second
		v := rollout.Seen{Canary: counts("canary"), Stable: counts("stable")}
		next := rollout.Decide(target, r, s, v, now.Add(lasted))
		on := next.Phase == rollout.Completed || next.Step > s.Step
		switch {
		case next.Step < s.Step || next.Step > s.Step+1:
			t.Fatalf("from step %d to %d", s.Step, next.Step)
		case on && (lasted < time.Minute || v.Canary.Requests < 100):
			t.Fatalf("%+v after %s and %d requests", next, lasted, v.Canary.Requests)
		case !on && next.Phase == rollout.Progressing && rollout.Decide(target, r, next, v, now.Add(lasted)) != next:
			t.Fatalf("the same again is something else: %+v", next)
		}
		worse := v
		worse.Canary.Failures = rapid.Uint64Range(v.Canary.Failures, v.Canary.Requests).Draw(t, "more failures")
		then := rollout.Decide(target, r, s, worse, now.Add(lasted))
		if !on && (then.Phase == rollout.Completed || then.Step > s.Step) || next.Phase == rollout.RolledBack && then.Phase != rollout.RolledBack {
			t.Fatalf("with more failures %+v, else %+v", then, next)
		}
	})
}
