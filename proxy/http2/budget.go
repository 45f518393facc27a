package http2

import "time"

// budget bounds what costs us work and serves nobody: resets (CVE-2023-44487), streams broken on purpose
// (CVE-2025-8671), pings, settings, empty frames, interim heads. Useful work and time give it back.
type budget struct {
	left, full int64
	at         time.Duration // of the last refill
	now        time.Duration
}

func (b *budget) earn() {
	if b.left < b.full {
		b.left++
	}
}

// Tick tells the time, on any monotonic clock, so that the flood bounds are rates: a tenth of Config.Budget
// comes back per second, and a reset of a stream that has lived for a second is free. Optional and cheap: call it before Feed where a time is at hand. Without it only useful
// work gives budget back, and an idle connection ends after Config.Budget keep-alive pings.
func (c *Conn) Tick(now time.Duration) {
	b := &c.budget
	b.now = now
	if b.left >= b.full || b.at == 0 || now < b.at {
		b.at = now
		return
	}
	if n := int64(now-b.at) / (int64(time.Second) * 10 / b.full); n > 0 {
		b.left = min(b.full, b.left+n)
		b.at = now
	}
}

// spendReset pays for the peer's reset of s.
func (c *Conn) spendReset(s *Stream) {
	if c.budget.now == 0 || c.budget.now-s.born < time.Second {
		c.spend(1, "too many streams reset")
	}
}

// spend takes n from the budget; it answers false if the connection has ended for lack of it.
func (c *Conn) spend(n int64, why string) bool {
	if c.budget.left -= n; c.budget.left < 0 {
		c.fail(EnhanceYourCalm, why)
	}
	return c.err == nil
}
