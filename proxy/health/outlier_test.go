package health_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/health"
)

// usual is Envoy's defaults, but that everything is enforced and everybody may be ejected.
func usual() *model.Outlier {
	return &model.Outlier{Consecutive5xx: 5, ConsecutiveGateway: 5, ConsecutiveLocal: 5, Interval: 10 * time.Second, BaseEjection: 30 * time.Second,
		MaxEjection: 300 * time.Second, MaxPercent: 100, Enforce5xx: 100, EnforceGateway: 100, EnforceLocal: 100, EnforceSuccessRate: 100,
		SuccessMinimumHosts: 5, SuccessRequestVolume: 100, SuccessStdevFactor: 1900, EnforceFailurePercent: 100, EnforceLocalSuccessRate: 100,
		EnforceLocalFailurePercent: 100, FailureThreshold: 85, FailureMinimumHosts: 5, FailureRequestVolume: 50}
}

func group(n int, o *model.Outlier) *health.Outliers {
	out := &health.Outliers{Settings: o}
	for range n {
		out.Members = append(out.Members, &health.Member{})
	}
	return out
}

func nought() uint64 { return 0 }

func ejected(o *health.Outliers) (out []int) {
	for i, m := range o.Members {
		if m.Ejected() {
			out = append(out, i)
		}
	}
	return out
}

// TestMaxPercent: as Envoy since 1.27: not more than the share, and one only if always_eject_one_host says so.
func TestMaxPercent(t *testing.T) {
	for _, c := range []struct {
		members int
		percent uint32
		one     bool
		want    int
	}{
		{10, 10, false, 1}, {9, 10, false, 0}, {9, 10, true, 1}, {3, 10, false, 0}, {3, 34, false, 1}, {3, 50, true, 1},
		{4, 50, false, 2}, {3, 100, false, 3}, {3, 0, false, 0}, {3, 0, true, 1}, {3, 200, false, 3},
	} {
		s := usual()
		s.MaxPercent, s.AlwaysOne = c.percent, c.one
		o := group(c.members, s)
		for _, m := range o.Members {
			o.Trip(m, health.Consecutive5xx, 0, 0)
		}
		if got := len(ejected(o)); got != c.want {
			t.Errorf("%d members, %d %%, at least one %v: %d ejected, want %d", c.members, c.percent, c.one, got, c.want)
		}
	}
}

// TestEnforced: every reason has its own chance.
func TestEnforced(t *testing.T) {
	for why := range health.Latency { // who is slow, or fails when it is probed, is always ejected: who wants less says so otherwise
		s := usual()
		percent := [...]*uint32{&s.Enforce5xx, &s.EnforceGateway, &s.EnforceLocal, &s.EnforceSuccessRate, &s.EnforceLocalSuccessRate,
			&s.EnforceFailurePercent, &s.EnforceLocalFailurePercent}[why]
		*percent = 30
		n := 0
		for i := range 100 {
			o := group(1, s)
			if o.Trip(o.Members[0], why, 0, uint64(i)<<32) {
				n++
			}
		}
		if n != 30 {
			t.Errorf("%v: %d of 100", why, n)
		}
	}
}

// TestEjectionTimes: 30 s, 60 s, … up to the longest; and back by one for every interval of good conduct.
func TestEjectionTimes(t *testing.T) {
	s := usual()
	s.MaxEjection = 100 * time.Second
	o := group(1, s)
	m, now := o.Members[0], time.Duration(0)
	last := func() time.Duration {
		t.Helper()
		if !o.Trip(m, health.Consecutive5xx, now, 0) {
			t.Fatal("not ejected")
		}
		if o.Trip(m, health.Consecutive5xx, now, 0) {
			t.Fatal("ejected twice")
		}
		for from := now; ; {
			now += s.Interval
			if o.Tick(now, nought); !m.Ejected() {
				return now - from
			}
			if now-from > time.Hour {
				t.Fatal("never restored")
			}
		}
	}
	var got []time.Duration
	for range 6 {
		got = append(got, last())
	}
	if want := []time.Duration{30, 60, 90, 100, 100, 100}; !slices.EqualFunc(got, want, func(a, b time.Duration) bool { return a == b*time.Second }) {
		t.Errorf("ejected for %v", got)
	}
	for range 3 { // 5 times were counted, though the longest is shorter
		now += s.Interval
		o.Tick(now, nought)
	}
	if got := last(); got != 90*time.Second {
		t.Errorf("after 3 good intervals: %v", got)
	}
	o.Trip(m, health.Consecutive5xx, now, 0)
	o.Restore(m, now+time.Second)
	if m.Ejected() {
		t.Error("not restored by hand")
	}
}

func TestEjectionJitter(t *testing.T) {
	s := usual()
	s.EjectionJitter = 10 * time.Second
	o := group(1, s)
	o.Trip(o.Members[0], health.Consecutive5xx, 0, 5000)
	if o.Tick(34999*time.Millisecond, nought); !o.Members[0].Ejected() {
		t.Error("restored before its jitter was over")
	}
	if o.Tick(35*time.Second, nought); o.Members[0].Ejected() {
		t.Error("not restored in time")
	}
}

// TestRates: success rate and failure percentage, per kind.
func TestRates(t *testing.T) {
	type rates []health.Rate
	even := func(good ...uint64) (out rates) {
		for _, g := range good {
			out = append(out, health.Rate{Total: 100, Good: g})
		}
		return out
	}
	for _, c := range []struct {
		name   string
		change func(*model.Outlier)
		rates  rates
		want   []int
		why    health.Why
	}{
		{"all well", nil, even(100, 100, 99, 98, 100), nil, 0},
		{"Envoy's example: 50 is below 52", nil, even(50, 100, 100, 100, 100), []int{0}, health.SuccessRate},
		{"a wider factor", func(s *model.Outlier) { s.SuccessStdevFactor = 2100 }, even(50, 100, 100, 100, 100), nil, 0},
		{"too few members", nil, even(50, 100, 100, 100), nil, 0},
		{"one had too few requests", nil, append(even(50, 100, 100, 100), health.Rate{Total: 99, Good: 99}), nil, 0},
		{"nobody is an outlier where all are bad", func(s *model.Outlier) { s.FailureThreshold = 100 }, even(10, 10, 10, 10, 10), nil, 0},
		{"but their failures count", nil, even(10, 15, 16, 90, 90), []int{0, 1}, health.FailurePercent},
		{"failures are compared with nobody", func(s *model.Outlier) { s.FailureMinimumHosts = 1 }, even(0), []int{0}, health.FailurePercent},
		{"not enforced", func(s *model.Outlier) { s.EnforceSuccessRate, s.EnforceFailurePercent = 0, 0 }, even(0, 100, 100, 100, 100), nil, 0},
		{"not more than are allowed", func(s *model.Outlier) { s.MaxPercent = 20 }, even(0, 0, 90, 90, 90), []int{0}, health.FailurePercent},
	} {
		for kind := range health.Rates {
			s := usual()
			s.SplitLocal = true
			if c.change != nil {
				c.change(s)
				if s.EnforceSuccessRate == 0 {
					s.EnforceLocalSuccessRate, s.EnforceLocalFailurePercent = 0, 0
				}
			}
			o := group(len(c.rates), s)
			for i, r := range c.rates {
				o.Members[i].Rates[kind] = r
			}
			changes := o.Tick(s.Interval, nought)
			why := c.why
			if kind == health.Local {
				why++ // in the list the local one is next
			}
			for _, ch := range changes {
				if !ch.Ejected || ch.Why != why {
					t.Errorf("%s, kind %d: %+v, want %v", c.name, kind, ch, why)
				}
			}
			if got := ejected(o); !slices.Equal(got, c.want) || len(changes) != len(c.want) {
				t.Errorf("%s, kind %d: ejected %v, want %v", c.name, kind, got, c.want)
			}
		}
	}
}

// TestLocalIsSplit: without split_external_local_origin_errors the rates of connections are not looked at.
func TestLocalIsSplit(t *testing.T) {
	s := usual()
	s.FailureMinimumHosts = 1
	o := group(1, s)
	o.Members[0].Rates[health.Local] = health.Rate{Total: 100}
	if c := o.Tick(s.Interval, nought); len(c) != 0 {
		t.Error(fmt.Sprint(c))
	}
}
