package rate_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/internal/rate"
)

func TestRateBurstThenSteady(t *testing.T) {
	r := rate.New(100, time.Second, 20)
	state, now, ok := int64(0), 5*time.Second, false
	for i := range 21 {
		if state, ok = r.Take(state, now, 1); ok != (i < 20) {
			t.Fatalf("request %d of the burst: %v", i, ok)
		}
	}
	if w := r.Wait(state, now, 1); w != 10*time.Millisecond {
		t.Errorf("wait %v", w)
	}
	if left := r.Left(state, now+35*time.Millisecond); left != 3 {
		t.Errorf("%d left after 35 ms", left)
	}
	n := 0
	for end := now + 10*time.Second; now < end; now += time.Millisecond {
		if state, ok = r.Take(state, now, 1); ok {
			n++
		}
	}
	if n < 998 || n > 1000 {
		t.Errorf("%d in ten seconds", n)
	}
	if r.Full(state, now+time.Minute) != 0 || r.Left(state, now+time.Minute) != 20 {
		t.Error("a bucket that nobody takes from is not full")
	}
}

// TestRateNeverMore: whatever is asked when, no stretch of time sees more than burst and what comes back in it.
func TestRateNeverMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		units := rapid.Uint32Range(1, 2_000_000).Draw(t, "units")
		window := time.Duration(rapid.Int64Range(1e6, 3600e9).Draw(t, "window"))
		burst := rapid.Uint32Range(1, 1000).Draw(t, "burst")
		r := rate.New(units, window, burst)
		state, now, start, taken := int64(0), time.Duration(0), time.Duration(0), uint64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(window)/int64(units)*3+1).Draw(t, "gap"))
			n := rapid.Uint32Range(1, 3).Draw(t, "n")
			next, ok := r.Take(state, now, n)
			if wait := r.Wait(state, now, n); ok != (wait == 0) {
				t.Fatalf("taken: %v, but the wait is %v", ok, wait)
			} else if !ok && n <= burst {
				if _, then := r.Take(state, now+wait, n); !then {
					t.Fatalf("still nothing after the wait of %v", wait)
				}
			}
			if state = next; ok {
				taken += uint64(n)
			}
			most := uint64(burst) + uint64(float64(now-start)/float64(window)*float64(units)+1)
			if taken > most {
				t.Fatalf("%d taken in %v, %d are allowed", taken, now-start, most)
			}
		}
	})
}

// TestRateTogether: units that are taken together cost what they cost one by one.
func TestRateTogether(t *testing.T) {
	r := rate.New(2_000_000, time.Millisecond, 2) // two in a nanosecond: what one costs is rounded up
	state, ok := r.Take(0, 0, 2)
	if !ok {
		t.Fatal("the first two were refused")
	}
	if _, again := r.Take(state, 0, 2); again {
		t.Error("four are let through where two are allowed")
	}
}

func TestRateEdges(t *testing.T) {
	if _, ok := rate.New(0, time.Second, 5).Take(0, 0, 1); ok {
		t.Error("a rate of nothing let something through")
	}
	r := rate.New(1<<32-1, 24*time.Hour, 1<<32-1)
	if _, ok := r.Take(0, 1<<60, 1); !ok {
		t.Error("the largest rate refuses its first")
	}
	slow := rate.New(1, 24*time.Hour, 1<<32-1)
	state, ok := slow.Take(0, 1<<60, 1<<32-1)
	if _, again := slow.Take(state, 1<<60, 1); ok && again {
		t.Error("more than the burst at once")
	}
	one := rate.New(10, time.Second, 1)
	state, _ = one.Take(0, 0, 1)
	if s := one.Refund(state, 1); s != 0 {
		t.Errorf("after a refund the state is %d", s)
	}
}

func TestBandwidthOwes(t *testing.T) {
	r := rate.NewBandwidth(10<<20, time.Second, 64<<10)
	state := r.Spend(0, 0, 10<<20+64<<10)
	if w := r.Wait(state, 0, 0); w < 999*time.Millisecond || w > 1001*time.Millisecond {
		t.Errorf("after a second's worth beyond the burst one waits %v", w)
	}
	if _, ok := r.Take(state, 500*time.Millisecond, 1); ok {
		t.Error("what is owed was not waited for")
	}
	sum := int64(0)
	for range 1 << 16 { // sixteen bytes at a time, a megabyte in all
		sum = r.Spend(sum, 0, 16)
	}
	if d := time.Duration(sum); d < 100*time.Millisecond || d > 101*time.Millisecond {
		t.Errorf("a megabyte in small pieces costs %v, a tenth of a second was said", d)
	}
}
