package cluster

import "time"

// An ejected endpoint whose time is over may have to prove itself before it gets its share back (model.Outlier.Probe): it is
// half open, and the next request that can goes to it, alone. Who watches decides what follows from how it went.

// halfState is where that stands.
type halfState = uint32

const (
	shut    halfState = iota // not half open
	waiting                  // for a request
	trying                   // a request is under way
	good                     // it went well
	bad                      // it did not
)

// SetEjected ejects the endpoint, or restores it; in both cases it is not half open. From any goroutine.
func (e *Endpoint) SetEjected(v bool) {
	e.turn(shut)
	if e.ejected.Swap(v) != v && e.cluster != nil {
		e.cool()
		e.cluster.Replan()
	}
}

// Ejected reports whether the endpoint is ejected, half open or not.
func (e *Endpoint) Ejected() bool { return e.ejected.Load() }

// HalfOpen lets one request through to the endpoint, which is ejected. For who watches.
func (e *Endpoint) HalfOpen() {
	if !e.Gone() {
		e.turn(waiting)
	}
}

// turn changes the state, and keeps count.
func (e *Endpoint) turn(to halfState) {
	was := e.half.Swap(to)
	if e.cluster == nil {
		return
	}
	if to == waiting {
		e.asked.Store(0)
		e.cluster.half.Add(1)
	}
	if was == waiting {
		e.cluster.half.Add(-1)
	}
}

// Probing reports whether an endpoint waits for a request that decides about it.
func (c *Cluster) Probing() bool { return c.half.Load() > 0 }

// probe answers an endpoint of the view that waits for a request, if this one will do: one that has not failed elsewhere.
func (v *view) probe(ch *Choice) *Endpoint {
	if ch.NoProbe || len(ch.Excluded) > 0 {
		return nil
	}
	for _, l := range v.levels {
		for _, e := range l.endpoints {
			if e.half.Load() == waiting && !e.unhealthy.Load() && e.mayTry(ch) && e.half.CompareAndSwap(waiting, trying) {
				e.cluster.half.Add(-1)
				ch.Probe = true
				return e
			}
		}
	}
	return nil
}

// probeWait is how long an ejected endpoint waits for a request that may be sent twice: should it fail, that one is answered
// elsewhere and nobody notices. After that any will do, because some services get no other.
const probeWait = 5 * time.Second

// mayTry reports whether a request may decide about the endpoint.
func (e *Endpoint) mayTry(ch *Choice) bool {
	if !ch.Once {
		return true
	}
	since := e.asked.Load()
	if since == 0 {
		since = int64(max(ch.Now, 1))
		e.asked.CompareAndSwap(0, since)
	}
	return ch.Now-time.Duration(since) >= probeWait
}

// Probed says how the request went that Choice.Probe was said of.
func (e *Endpoint) Probed(well bool) {
	to := bad
	if well {
		to = good
	}
	if e.half.CompareAndSwap(trying, to) {
		e.cluster.nudge()
	}
}

// Unprobed says that it has ended without telling anything: another one is needed.
func (e *Endpoint) Unprobed() {
	if e.half.CompareAndSwap(trying, waiting) {
		e.cluster.half.Add(1)
	}
}

// TakeProbe answers how a request went that decides about the endpoint; ok is false if none has ended. For who watches,
// which then calls SetEjected.
func (e *Endpoint) TakeProbe() (well, ok bool) {
	switch e.half.Load() {
	case good:
		return true, true
	case bad:
		return false, true
	}
	return false, false
}
