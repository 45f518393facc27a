package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/sim"
)

// Faults are the classes of what may go wrong in a run.
type Faults struct {
	Resets   bool // the network resets connections
	Programs bool // programs break off responses, say goodbye, close connections after a response
	Clients  bool // clients break off
	Changes  bool // endpoints come and go, routes and clusters are replaced, a proxy drains
	Connects bool // nobody accepts at an address for a while: refused, or no answer
	Slow     bool // some ends take and give a few bytes at a time
	Clock    bool // time jumps, and the calendar forth and back
}

var faultNames = [...]string{"resets", "programs", "clients", "changes", "connects", "slow", "clock"}

func (f *Faults) all() [len(faultNames)]*bool {
	return [...]*bool{&f.Resets, &f.Programs, &f.Clients, &f.Changes, &f.Connects, &f.Slow, &f.Clock}
}

// String answers the names of the classes that are on, with commas; "none" if none is.
func (f Faults) String() string {
	var names []string
	for i, on := range f.all() {
		if *on {
			names = append(names, faultNames[i])
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}

// ParseFaults reads what String writes.
func ParseFaults(s string) (Faults, error) {
	var f Faults
	if s == "none" || s == "" {
		return f, nil
	}
next:
	for name := range strings.SplitSeq(s, ",") {
		for i, on := range f.all() {
			if faultNames[i] == name {
				*on = true
				continue next
			}
		}
		return f, fmt.Errorf("there is no fault %q; there are %s", name, strings.Join(faultNames[:], ", "))
	}
	return f, nil
}

// Without answers the sets that have one class less than f.
func (f Faults) Without() []Faults {
	var sets []Faults
	for i, on := range f.all() {
		if *on {
			less := f
			*less.all()[i] = false
			sets = append(sets, less)
		}
	}
	return sets
}

// FaultsOf answers the faults of a seed.
func FaultsOf(seed uint64) (f Faults) {
	rnd := chance(seed, 1)
	for i, on := range f.all() {
		*on = rnd.IntN([...]int{3, 3, 3, 3, 4, 5, 6}[i]) == 0
	}
	return f
}

// chance answers a source of its own for one part of a run, so that what is switched off changes nothing else.
func chance(seed, part uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x656e67696e65+part)) }

// later has f done on the clients' loop within d.
func (r *run) later(rnd *rand.Rand, d time.Duration, f func()) {
	t := &loop.Timer{Expired: f}
	wait := time.Duration(rnd.Int64N(int64(d)))
	r.clients.Post(func() { r.clients.Arm(t, wait) })
}

// change has endpoints go and come back, routes and clusters replaced, and proxies drain for good where there are others.
func (r *run) change() {
	rnd := chance(r.seed, 11)
	drained := -1
	if len(r.in) > 1 && rnd.IntN(2) == 0 {
		drained = rnd.IntN(len(r.in))
	}
	for range 1 + rnd.IntN(4) {
		here := make([]bool, len(r.in))
		for i := range here {
			here[i] = i != drained && (rnd.IntN(2) == 0 || i == (drained+1)%len(r.in))
		}
		r.later(rnd, 300*time.Millisecond, func() { r.trace("endpoints %v", here); r.announce(here) })
	}
	for range rnd.IntN(4) {
		how := rnd.IntN(3)
		r.later(rnd, 300*time.Millisecond, func() { r.replace(how) })
	}
	if drained >= 0 {
		r.later(rnd, 300*time.Millisecond, func() { r.drain(r.in[drained]) })
	}
	if rnd.IntN(4) == 0 {
		r.later(rnd, 300*time.Millisecond, func() { r.drain(r.gateway) })
	}
}

// drain has p say goodbye. What it listens on stays: connections that are on their way are served.
func (r *run) drain(p *proxy) {
	p.loop.Post(func() {
		r.trace("%s drains", p.name)
		p.drain()
	})
}

// replace puts other routes, or other clusters with the same endpoints, in force.
func (r *run) replace(how int) {
	r.generation++
	r.trace("replaced: %d", how)
	switch how {
	case 0:
		r.routes = r.table()
	case 1:
		m := *r.clusters[echo].Model()
		m.ConnectTimeout += time.Millisecond
		r.clusters[echo].Set(&m)
	case 2:
		for name := range r.clusters {
			r.makeCluster(name)
		}
		r.announce(r.here)
	}
}

// announce puts the endpoints in force that are here. As in the proxy, connections to others are retired.
func (r *run) announce(here []bool) {
	r.here = here
	for name, c := range r.clusters {
		var list []model.Endpoint
		for i, e := range r.places[name] {
			if here[i] {
				list = append(list, e)
			}
		}
		c.SetEndpoints(&model.Endpoints{Cluster: name, Endpoints: list})
	}
	for _, p := range []*proxy{r.out, r.gateway} {
		if p != nil {
			p.loop.Post(func() { p.pool.Retire(func(t *pool.Target) bool { return !r.known(t.Address) }) })
		}
	}
}

// known reports whether an endpoint that is here has the address.
func (r *run) known(a netip.AddrPort) bool {
	for _, list := range r.places {
		for i := range list {
			if list[i].Address == a && r.here[i] {
				return true
			}
		}
	}
	return false
}

// unreachable has addresses refuse connections, or not answer, for a while.
func (r *run) unreachable() {
	rnd := chance(r.seed, 12)
	for range 1 + rnd.IntN(4) {
		d := r.doors[rnd.IntN(len(r.doors))]
		hole := rnd.IntN(2) == 0
		back := time.Duration(rnd.Int64N(int64(3 * time.Second)))
		r.later(rnd, 300*time.Millisecond, func() {
			if d.shut {
				return
			}
			d.shut = true
			r.trace("%v accepts nobody, silently: %t", d.addr, hole)
			if hole {
				r.world.Blackhole(d.addr)
			} else {
				d.listener.Close()
			}
			r.clients.Arm(&loop.Timer{Expired: func() {
				d.shut = false
				r.trace("%v accepts again", d.addr)
				if hole {
					r.world.Reachable(d.addr)
				} else {
					d.open()
				}
			}}, back)
		})
	}
}

// door is an address that somebody listens on.
type door struct {
	addr     netip.AddrPort
	open     func()
	listener *sim.Listener
	shut     bool
}

// listen opens an address.
func (r *run) listen(l *sim.Loop, addr netip.AddrPort, accept func(loop.Incoming)) {
	d := &door{addr: addr}
	d.open = func() { d.listener = r.world.Listen(l, addr, accept) }
	d.open()
	r.doors = append(r.doors, d)
}

// jumps are what happens to the clocks, by step.
func (r *run) planJumps() {
	rnd := chance(r.seed, 13)
	step := 0
	for range 1 + rnd.IntN(4) {
		step += 1 + rnd.IntN(1500)
		r.jumps = append(r.jumps, jump{
			step: step, by: time.Duration(float64(time.Second) * []float64{1, 10, 100, 4000, 40000}[rnd.IntN(5)] * rnd.Float64()),
			wall: time.Duration(rnd.Int64N(int64(48*time.Hour))) - 24*time.Hour,
		})
	}
}

type jump struct {
	step     int
	by, wall time.Duration
}

// jump lets the clocks jump when it is time for that.
func (r *run) jump(step int) {
	for len(r.jumps) > 0 && r.jumps[0].step <= step {
		j := r.jumps[0]
		r.jumps = r.jumps[1:]
		r.trace("time jumps by %v, the calendar by %v", j.by, j.wall)
		r.world.Jump(j.by)
		r.world.ShiftWall(j.wall)
		r.most += j.by
	}
}

// slowDown makes c slow, one in n times.
func (r *run) slowDown(rnd *rand.Rand, c loop.Conn, n, least int) {
	if r.faults.Slow && rnd.IntN(n) == 0 {
		r.world.Slow(c, least+rnd.IntN(4*least), time.Duration(rnd.Int64N(int64([]time.Duration{2 * time.Millisecond, 50 * time.Millisecond, 2 * time.Second}[rnd.IntN(3)]))))
	}
}
