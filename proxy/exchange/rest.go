package exchange

import (
	"time"

	"github.com/tulle-mesh/tulle/proxy/cluster"
)

// The wait before the next attempt. It is over when its time is; sooner when the cluster is seen to be well again
// (cluster.Bench); and later when others have asked in vain meanwhile, so that it is known what an attempt would tell. Waits
// that a policy has pinned, or the server has asked for, are what they are.

// rest is an exchange's wait.
type rest struct {
	seat        cluster.Rest
	from, asked time.Duration // loop times: when it began, and when its length was chosen
	until       time.Duration // when it is over
	patient     bool          // it may be over sooner or later
}

// later makes the next attempt after a while.
func (x *Exchange) later(wait time.Duration) {
	if wait <= 0 {
		x.w.cfg.Loop.Disarm(&x.pause)
		x.attempt()
		return
	}
	x.resting = true
	now := x.w.cfg.Loop.Now()
	x.rest.from, x.rest.asked, x.rest.until = now, now, now+wait
	if x.rest.patient && x.cluster != nil {
		x.w.sit(&x.rest.seat, x.cluster)
	}
	x.w.cfg.Loop.Arm(&x.pause, wait)
}

// paused is called when the wait before the next attempt, or the one before a second at the same time, is over.
func (x *Exchange) paused() {
	x.busy++
	switch {
	case !x.resting:
		x.hedge()
	case x.longer():
	default:
		x.stand()
		x.rested = true
		x.attempt()
		x.rested = false
	}
	x.leave()
}

// longer prolongs a wait that would end in an attempt of which it is known what it would tell.
func (x *Exchange) longer() bool {
	p := x.policy()
	if !x.rest.patient || p == nil || x.cluster == nil {
		return false
	}
	now := x.w.cfg.Loop.Now()
	d := x.cluster.Recovery().Longer(now, x.rest.from, x.rest.asked, x.left(p), p.Max, x.w.random.Uint64())
	if d <= 0 || x.ends != 0 && now+d >= x.ends {
		return false
	}
	x.rest.asked, x.rest.until = now, now+d
	x.w.cfg.Loop.Arm(&x.pause, d)
	return true
}

// stand ends the wait.
func (x *Exchange) stand() {
	x.resting = false
	x.w.bench.Leave(&x.rest.seat)
}

// rester is an exchange as a bench sees it.
type rester Exchange

// Rested implements cluster.Rester.
func (r *rester) Rested(after time.Duration) {
	x := (*Exchange)(r)
	x.rest.patient = false
	if until := x.w.cfg.Loop.Now() + after; until < x.rest.until {
		x.rest.until = until
		x.w.cfg.Loop.Arm(&x.pause, max(after, 1))
	}
}

// sit lets a wait end when the cluster is seen to be well.
func (w *Worker) sit(r *cluster.Rest, c *cluster.Cluster) {
	w.bench.Sit(r, c)
	if !w.turning.Armed() {
		w.armTurn()
	}
}

func (w *Worker) armTurn() {
	w.cfg.Loop.Arm(&w.turning, cluster.BenchTurn+time.Duration(w.random.Uint64()%uint64(cluster.BenchTurn/2)))
}

// turn looks for clusters that other loops have seen well, while anybody waits.
func (w *Worker) turn() {
	w.bench.Turn(w.random.Uint64())
	if !w.bench.Empty() {
		w.armTurn()
	}
}
