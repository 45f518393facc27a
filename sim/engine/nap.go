package engine

import (
	"math/rand/v2"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// nap is an end that now and then reads nothing for a while, so that what is on its way to it piles up. It is no fault: everybody
// has to wait for it.
type nap struct {
	c    loop.Conn
	rnd  *rand.Rand
	wake loop.Timer
	on   bool
}

// napping makes c take naps, in some runs.
func (r *run) napping(rnd *rand.Rand, c loop.Conn) *nap {
	n := &nap{c: c, rnd: rand.New(rand.NewPCG(rnd.Uint64(), 9)), on: r.naps}
	n.wake.Expired = c.Resume
	return n
}

// tired is asked whenever something was read.
func (n *nap) tired() {
	if n.on && !n.wake.Armed() && n.rnd.IntN(30) == 0 {
		n.c.Pause()
		n.c.Loop().Arm(&n.wake, time.Duration(n.rnd.Int64N(int64(300*time.Millisecond))))
	}
}

// end is called when the connection is gone.
func (n *nap) end() {
	n.on = false
	n.c.Loop().Disarm(&n.wake)
}
