package relay

import (
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Meter bounds how many bytes pass a second, in both directions together and perhaps with other connections. What has passed is
// paid for behind, so a connection never stops for good.
type Meter interface {
	// Spend takes n bytes that have passed, and answers how long no more should.
	Spend(n int) (wait time.Duration)
}

// pay stops a side until what it has passed on is paid for.
func (s *side) pay(n int) {
	r := s.relay
	wait := r.opt.Meter.Spend(n)
	if wait <= 0 {
		return
	}
	s.owes = true
	s.conn.Pause()
	now := r.set.cfg.Loop.Now()
	if r.paidAt = max(r.paidAt, now+wait); !r.meter.Armed() {
		r.set.cfg.Loop.Arm(&r.meter, wait)
	}
}

// paid lets both sides go on.
func (r *relay) paid() {
	if left := r.paidAt - r.set.cfg.Loop.Now(); left > 0 {
		r.set.cfg.Loop.Arm(&r.meter, left)
		return
	}
	for _, s := range [...]*side{&r.down, &r.up} {
		if s.owes {
			s.owes = false
			if !s.closed && !r.waits && (s.peer.closed || s.peer.conn.Buffered() <= loop.HighWater) { // else Writable goes on
				s.conn.Resume()
			}
		}
	}
}
