package recovery_test

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model/recovery"
)

var begin = time.Unix(1_800_000_000, 0)

// sketch makes one of outages of the given lengths.
func sketch(lengths ...time.Duration) *recovery.Sketch {
	s := &recovery.Sketch{}
	for _, d := range lengths {
		s.Add(begin, d)
	}
	return s
}

// spread answers n outages of about d.
func spread(n int, d time.Duration) []time.Duration {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]time.Duration, n)
	for i := range out {
		out[i] = d*8/10 + time.Duration(r.Int64N(int64(d*4/10)))
	}
	return out
}

func TestQuantiles(t *testing.T) {
	s := sketch()
	if s.Quantile(0.5) != 0 || s.Weight() != 0 || s.Law() != nil {
		t.Error("an empty sketch knows something")
	}
	for ms := range 1000 {
		s.Add(begin, time.Duration(ms+1)*10*time.Millisecond)
	}
	// Buckets hold 64 at most, so those of long ones are cut; up to there the quantiles are those of the ends.
	u := sketch(spread(50, 200*time.Millisecond)...)
	for _, q := range []float64{0.05, 0.5, 0.95} {
		if d := u.Quantile(q); d < 160*time.Millisecond || d > 290*time.Millisecond {
			t.Errorf("quantile %v: %v", q, d)
		}
	}
	if s.Quantile(1) < 10*time.Second || s.Quantile(0) != 4*time.Millisecond*3 && s.Quantile(0) > 15*time.Millisecond {
		t.Errorf("from %v to %v", s.Quantile(0), s.Quantile(1))
	}
	if d := sketch(100 * time.Hour).Quantile(1); d < 55*time.Minute || d > 70*time.Minute {
		t.Errorf("what is too long counts as %v", d)
	}
}

// Merging is adding, whatever the order, and what is old counts less.
func TestMergeAndFade(t *testing.T) {
	a, b := sketch(spread(10, time.Second)...), &recovery.Sketch{}
	for _, d := range spread(10, 20*time.Second) {
		b.Add(begin.Add(recovery.HalfLife), d)
	}
	x, y := *a, *b
	x.Merge(b)
	y.Merge(a)
	if !bytes.Equal(x.Append(nil), y.Append(nil)) {
		t.Error("the order of merging matters")
	}
	if w := x.Weight(); w < 14.9 || w > 15.1 {
		t.Errorf("weight %v, want 10 and half of 10", w)
	}
	z := recovery.Sketch{}
	z.Merge(&x)
	z.Merge(&recovery.Sketch{})
	if !bytes.Equal(x.Append(nil), z.Append(nil)) {
		t.Error("merging with nothing changes something")
	}
	for range 1000 {
		z.Add(begin, time.Second)
	}
	if w := z.Weight(); w > 15+recovery.MostPerBucket {
		t.Errorf("one bucket weighs %v", w)
	}
}

func wait(t *testing.T, s *recovery.Sketch, down time.Duration, left int, random uint64) time.Duration {
	t.Helper()
	l := s.Law()
	if l == nil {
		t.Fatal("no law")
	}
	return l.Wait(&recovery.Question{Down: down, Left: left, Most: time.Minute, Random: random})
}

// Failures of about 20 s are waited out, those of about 200 ms as well; of two kinds the short is tried first, and when it
// was not that, the end of the long.
func TestWait(t *testing.T) {
	long, short := spread(30, 20*time.Second), spread(30, 200*time.Millisecond)
	both := append(append([]time.Duration(nil), long...), short...)
	for _, c := range []struct {
		what     string
		of       []time.Duration
		down     time.Duration
		left     int
		from, to time.Duration
	}{
		{"long", long, 0, 4, 16 * time.Second, 24 * time.Second},
		{"long, some time in", long, 10 * time.Second, 4, 6 * time.Second, 14 * time.Second},
		{"short", short, 0, 4, 160 * time.Millisecond, 240 * time.Millisecond},
		{"both, at first", both, 0, 4, 160 * time.Millisecond, 270 * time.Millisecond},
		{"both, then", both, time.Second, 4, 14 * time.Second, 23 * time.Second},
		{"both, the only one", both, 0, 1, 18 * time.Second, 26 * time.Second},
		{"longer than any", short, time.Second, 4, 5 * time.Millisecond, time.Second},
		{"much longer than any", short, time.Minute, 4, 100 * time.Millisecond, 20 * time.Second},
	} {
		s := sketch(c.of...)
		for _, random := range []uint64{0, 1 << 63, 1<<64 - 1} {
			if d := wait(t, s, c.down, c.left, random); d < c.from || d > c.to+c.to/4 {
				t.Errorf("%s: %v, want %v to %v", c.what, d, c.from, c.to)
			}
		}
	}
}

// Callers do not come at the same time.
func TestSpread(t *testing.T) {
	s := sketch(spread(30, 10*time.Second)...)
	a, b := wait(t, s, 0, 3, 0), wait(t, s, 0, 3, 1<<64-1)
	if b-a < a/5 || b-a > a/3 {
		t.Errorf("from %v to %v", a, b)
	}
}

// Whatever was seen, a wait is within its bounds, and a sketch survives the wire.
func TestAnySketch(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := recovery.Sketch{}
		for range r.IntN(40) {
			s.Add(begin.Add(time.Duration(r.Int64N(int64(72*time.Hour)))), time.Duration(r.Int64N(1<<r.IntN(44)+1)))
		}
		again, err := recovery.Decode(s.Append(nil))
		if err != nil || !bytes.Equal(again.Append(nil), s.Append(nil)) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		l := s.Law()
		if l == nil {
			continue
		}
		q := recovery.Question{Down: time.Duration(r.Int64N(1 << r.IntN(44))), Left: r.IntN(6), Least: time.Duration(r.IntN(1000)) * time.Millisecond,
			Most: time.Duration(1+r.IntN(100)) * time.Second, Random: r.Uint64()}
		if d := l.Wait(&q); d < max(min(q.Least, q.Most), 1) || d > q.Most {
			t.Fatalf("seed %d: %v for %+v", seed, d, q)
		}
	}
}

// FuzzDecode: what is read is written the same again, and nothing is read that breaks a bound.
func FuzzDecode(f *testing.F) {
	f.Add(sketch(spread(20, time.Second)...).Append(nil))
	f.Add(sketch(spread(99, time.Millisecond)...).Append(nil))
	f.Add((&recovery.Learned{}).Append(nil))
	f.Add((&recovery.Learned{Service: *sketch(time.Hour), Endpoint: *sketch(1, 2, 3)}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := recovery.Decode(b); err == nil {
			w := s.Append(nil)
			again, err := recovery.Decode(w)
			if err != nil || again != s {
				t.Fatalf("%x: %v", w, err)
			}
			if s.Weight() > recovery.Buckets*recovery.MostPerBucket {
				t.Fatalf("%x: weight %v", b, s.Weight())
			}
			if l := s.Law(); l != nil {
				if d := l.Wait(&recovery.Question{Left: 3}); d < recovery.Least || d > recovery.Most {
					t.Fatalf("%x: %v", b, d)
				}
			}
		}
		if l, err := recovery.DecodeLearned(b); err == nil {
			again, err := recovery.DecodeLearned(l.Append(nil))
			if err != nil || again != l {
				t.Fatalf("%x: %v", b, err)
			}
		}
	})
}
