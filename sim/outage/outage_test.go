package outage_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/sim/outage"
)

// TestLearnedWaits holds what docs/design/retries.md says: with the same budget, waits that are learned waste fewer attempts
// than 25 ms to 250 ms exponential, fewer requests are lost, and more of those that an outage has caught are answered soon
// after it is over. Where retries prolong outages, these are shorter.
func TestLearnedWaits(t *testing.T) {
	for _, s := range outage.Services() {
		for seed := range uint64(3) {
			fixed, learned := outage.Run(s, false, seed), outage.Run(s, true, seed)
			t.Logf("%s, seed %d:\nexponential %s\nlearned     %s", s.Name, seed, fixed.String(), learned.String())
			if fixed.Caught < 1000 || learned.Caught < 1000 {
				t.Fatal("hardly anybody was caught by an outage")
			}
			if a, b := wasted(&fixed), wasted(&learned); b > a*0.65 {
				t.Errorf("%.2f attempts were wasted per request, exponential %.2f", b, a)
			}
			if a, b := lost(&fixed), lost(&learned); b > a*0.7 {
				t.Errorf("%.1f %% were lost, exponential %.1f %%", 100*b, 100*a)
			}
			if a, b := fixed.Answered(fixed.Outage/4), learned.Answered(fixed.Outage/4); b < a+0.1 {
				t.Errorf("%.1f %% were answered soon, exponential %.1f %%", 100*b, 100*a)
			}
			if s.Overload && learned.Outage > fixed.Outage*8/10 {
				t.Errorf("outages of %v, exponential %v", learned.Outage, fixed.Outage)
			}
		}
	}
}

func wasted(r *outage.Result) float64 { return float64(r.Wasted) / float64(r.Caught) }
func lost(r *outage.Result) float64   { return float64(r.Lost) / float64(r.Caught) }

// The same seed gives the same run.
func TestRepeatable(t *testing.T) {
	s := outage.Services()[0]
	if a, b := outage.Run(s, true, 7), outage.Run(s, true, 7); a != b {
		t.Errorf("%v\n%v", a.String(), b.String())
	}
	if a := outage.Run(s, true, 7); a.Outage < 160*time.Millisecond || a.Outage > 240*time.Millisecond {
		t.Error(a.String())
	}
}
