package health_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/health"
)

func rnd() uint64 { return 0 }

// TestLatencyEjection: who takes more than factor times the median is out, whoever is slow together with the others is not.
func TestLatencyEjection(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name    string
		means   []time.Duration
		answers uint64
		want    []int
	}{
		{"one of five", []time.Duration{20 * ms, 25 * ms, 90 * ms, 22 * ms, 18 * ms}, 100, []int{2}},
		{"not three times", []time.Duration{20 * ms, 25 * ms, 59 * ms, 22 * ms, 18 * ms}, 100, nil},
		{"all are slow", []time.Duration{900 * ms, 950 * ms, 1000 * ms}, 100, nil},
		{"two of four: the median is of the good ones", []time.Duration{20 * ms, 20 * ms, 300 * ms, 300 * ms}, 100, []int{2, 3}},
		{"fast is fast: less than 10 ms", []time.Duration{ms, ms, 9 * ms}, 100, nil},
		{"too few answers", []time.Duration{20 * ms, 20 * ms, 900 * ms}, 19, nil},
		{"too few endpoints", []time.Duration{20 * ms, 900 * ms}, 100, nil},
	} {
		s := &model.Outlier{Interval: time.Second, BaseEjection: time.Second, MaxEjection: time.Minute, MaxPercent: 100, LatencyFactor: 3}
		o := &health.Outliers{Settings: s}
		for _, m := range c.means {
			o.Members = append(o.Members, &health.Member{Spent: m * time.Duration(c.answers), Answers: c.answers})
		}
		var got []int
		for _, ch := range o.Tick(time.Second, rnd) {
			if !ch.Ejected || ch.Why != health.Latency {
				t.Errorf("%s: %+v", c.name, ch)
			}
			got = append(got, ch.Member)
		}
		if len(got) != len(c.want) || len(got) > 0 && (got[0] != c.want[0] || got[len(got)-1] != c.want[len(got)-1]) {
			t.Errorf("%s: %v are ejected, want %v", c.name, got, c.want)
		}
	}
}

// TestProbe: when its time is over the member is half open, once; a good answer restores it, a failure ejects it for twice
// the time, and then three times.
func TestProbe(t *testing.T) {
	s := &model.Outlier{Interval: time.Second, BaseEjection: 10 * time.Second, MaxEjection: 25 * time.Second, MaxPercent: 100, Enforce5xx: 100, Probe: true}
	m := &health.Member{}
	o := &health.Outliers{Settings: s, Members: []*health.Member{m}}
	if !o.Trip(m, health.Consecutive5xx, 0, 0) {
		t.Fatal("is not ejected")
	}
	now := time.Duration(0)
	for round, out := range []time.Duration{10 * time.Second, 20 * time.Second, 25 * time.Second, 25 * time.Second} {
		if ch := o.Tick(now+out-1, rnd); len(ch) > 0 {
			t.Fatalf("round %d: %+v before its time", round, ch)
		}
		now += out
		if ch := o.Tick(now, rnd); len(ch) != 1 || !ch[0].HalfOpen || !m.Ejected() || !m.HalfOpen() {
			t.Fatalf("round %d: %+v, ejected %v, half open %v", round, ch, m.Ejected(), m.HalfOpen())
		}
		if ch := o.Tick(now+time.Hour, rnd); len(ch) > 0 || !m.HalfOpen() {
			t.Fatalf("round %d: nobody asks: %+v", round, ch)
		}
		if o.Probed(m, false, now, 0) || m.HalfOpen() || !m.Ejected() {
			t.Fatalf("round %d: a failure ejects again", round)
		}
	}
	if o.Probed(m, true, now, 0) || !m.Ejected() {
		t.Error("an answer that comes too late restores nothing")
	}
	now += 25 * time.Second
	o.Tick(now, rnd)
	if !o.Probed(m, true, now, 0) || m.Ejected() || m.HalfOpen() {
		t.Error("a good answer restores")
	}
	if ch := o.Tick(now+time.Second, rnd); len(ch) > 0 {
		t.Errorf("%+v of a member that is well", ch)
	}
	// The settings change while it is half open.
	o.Trip(m, health.Consecutive5xx, now, 0)
	o.Tick(now+time.Minute, rnd)
	s.Probe = false
	if ch := o.Tick(now+time.Minute, rnd); len(ch) != 1 || ch[0].Ejected || m.Ejected() {
		t.Errorf("without probing it is restored: %+v", ch)
	}
}
