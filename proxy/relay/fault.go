package relay

import (
	"math/rand/v2"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Faults of relayed connections (model.RelayRoute.Fault): before the first byte a reset or a delay, then a bounded rate
// towards the client. The server has seen the connection by then.

// throttle bounds how fast bytes go towards the client; its zero value does not.
type throttle struct {
	rate   float64       // bytes a second; 0: no bound
	tokens float64       // bytes that may pass now
	at     time.Duration // loop time when tokens was true
}

// slowParts is in how many parts a second's bytes go out.
const slowParts = 16

// inject draws what happens to the relay. It reports whether nothing is read yet: it was reset, or waits.
func (r *relay) inject(f *model.Fault) bool {
	if f.Rate > 0 && r.among(f.RateShare) {
		r.slow = throttle{rate: float64(f.Rate), tokens: max(float64(f.Rate)/slowParts, 1), at: r.moved}
	}
	r.abort = f.Reset && r.among(f.AbortShare)
	switch {
	case f.Delay > 0 && r.among(f.DelayShare):
		r.waits = true
		r.set.cfg.Loop.Arm(&r.fault, f.Delay)
	case r.abort:
		r.reset()
	default:
		return false
	}
	return true
}

// among reports whether chance takes the connection into a share of a million.
func (r *relay) among(share uint32) bool {
	const million = 1_000_000
	return share >= million || share > 0 && uint64(r.set.cfg.Random()>>32)*million>>32 < uint64(share)
}

// reset ends the relay as the fault says.
func (r *relay) reset() {
	if r.reason == failure.None {
		r.reason = failure.FaultInjected
	}
	for _, s := range [...]*side{&r.down, &r.up} {
		if !s.closed {
			s.conn.Reset()
		}
	}
}

// faultExpired ends a delay, or lets further bytes through.
func (r *relay) faultExpired() {
	switch {
	case r.waits && r.abort:
		r.waits = false
		r.reset()
	case r.waits:
		r.waits = false
		for _, s := range [...]*side{&r.down, &r.up} {
			if !s.closed && !s.owes {
				s.conn.Resume()
			}
		}
	case !r.up.closed && !r.up.owes && r.down.conn.Buffered() <= loop.HighWater: // else Writable goes on
		r.up.conn.Resume()
	}
}

// allow answers how many of n bytes may go towards the client now; for the rest the server waits.
func (r *relay) allow(n int) int {
	s, now := &r.slow, r.set.cfg.Loop.Now()
	most := max(s.rate/slowParts, 1)
	s.tokens = min(s.tokens+(now-s.at).Seconds()*s.rate, most)
	s.at = now
	may := min(int(s.tokens), n)
	s.tokens -= float64(may)
	if may < n {
		r.up.conn.Pause()
		want := min(float64(n-may), most) - s.tokens
		r.set.cfg.Loop.Arm(&r.fault, time.Duration(max(want, 0)/s.rate*float64(time.Second))+time.Millisecond)
	}
	return may
}

// chance is Config.Random where none is given.
func chance() uint64 { return rand.Uint64() }
