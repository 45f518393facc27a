package proxy

import (
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/proxy/admin"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// flightWait bounds the wait for loops that are asked what they remember.
const flightWait = 2 * time.Second

// flown answers what the loops remember of their last exchanges, the newest first: admin.Config.Flight. From any goroutine.
func (p *Proxy) flown(wanted admin.Wanted) (out []*observe.Flown) {
	answers := make(chan []*observe.Flown, len(p.workers))
	asked := 0
	for _, w := range p.workers {
		if w.loop.Post(func() { answers <- w.recorder.Flight(wanted.Takes, wanted.Last) }) {
			asked++
		}
	}
	late := time.After(flightWait)
	for ; asked > 0; asked-- {
		select {
		case list := <-answers:
			out = append(out, list...)
		case <-late: // a loop that is ending, or stuck
			asked = 1
		}
	}
	slices.SortStableFunc(out, func(a, b *observe.Flown) int { return b.Wall.Compare(a.Wall) })
	return out[:min(len(out), wanted.Last)]
}
