package outage_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/sim/outage"
)

// TestLearnedWaits holds what docs/design/retries.md says: with the same budget, waits that are learned waste fewer attempts
// than 25 ms to 250 ms exponential, fewer requests are lost, and more of those that an outage has caught are answered soon
// after it is over. Where retries prolong outages, these are never longer, and with a large budget much shorter.
func TestLearnedWaits(t *testing.T) {
	for _, s := range outage.Services() {
		for _, percent := range []uint32{100, 20} {
			for seed := range uint64(3) {
				t.Run(fmt.Sprintf("%s, budget %d %%, seed %d", s.Name, percent, seed), func(t *testing.T) {
					t.Parallel()
					compare(t, s, percent, seed)
				})
			}
		}
	}
}

func compare(t *testing.T, s outage.Service, percent uint32, seed uint64) {
	fixed, learned := outage.Run(s, false, percent, seed), outage.Run(s, true, percent, seed)
	t.Logf("\nexponential %s\nlearned     %s", fixed.String(), learned.String())
	if fixed.Caught < 1000 || learned.Caught < 1000 {
		t.Fatal("hardly anybody was caught by an outage")
	}
	if a, b := wasted(&fixed), wasted(&learned); b > a*0.4 {
		t.Errorf("%.2f attempts were wasted per request, exponential %.2f", b, a)
	}
	if a, b := lost(&fixed), lost(&learned); b > a*0.8 || percent == 100 && b > a*0.1 {
		t.Errorf("%.1f %% were lost, exponential %.1f %%", 100*b, 100*a)
	}
	if a, b := fixed.Answered(fixed.Outage/4), learned.Answered(fixed.Outage/4); b < a+0.15 {
		t.Errorf("%.1f %% were answered soon, exponential %.1f %%", 100*b, 100*a)
	}
	if learned.Outage > fixed.Outage || s.Overload && percent == 100 && learned.Outage > fixed.Outage*6/10 {
		t.Errorf("outages of %v, exponential %v", learned.Outage, fixed.Outage)
	}
}

func wasted(r *outage.Result) float64 { return float64(r.Wasted) / float64(r.Caught) }
func lost(r *outage.Result) float64   { return float64(r.Lost) / float64(r.Caught) }

// The same seed gives the same run.
func TestRepeatable(t *testing.T) {
	s := outage.Services()[0]
	if a, b := outage.Run(s, true, 100, 7), outage.Run(s, true, 100, 7); a != b {
		t.Errorf("%v\n%v", a.String(), b.String())
	}
	if a := outage.Run(s, true, 100, 7); a.Outage < 160*time.Millisecond || a.Outage > 240*time.Millisecond {
		t.Error(a.String())
	}
}
