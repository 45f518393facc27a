package relay_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/sim"
)

// sockets makes connections to endpoints: each refuses at once, is silent until the timeout, or is reached.
type sockets struct {
	loop  *sim.Loop
	is    func(netip.AddrPort) failure.Reason // None: it is reached
	asked []netip.AddrPort
	waits []time.Duration
}

func (s *sockets) Blank(t *pool.Target, timeout time.Duration, ready func(loop.Conn, *failure.Failure)) func() {
	s.asked, s.waits = append(s.asked, t.Address), append(s.waits, timeout)
	gone := false
	then := func(why failure.Reason) {
		switch {
		case gone:
		case why == failure.None:
			ready(nil, nil)
		default:
			ready(nil, &failure.Failure{Reason: why})
		}
	}
	switch why := s.is(t.Address); why {
	case failure.ConnectTimeout:
		timer := &loop.Timer{Expired: func() { then(why) }}
		s.loop.Arm(timer, timeout)
	default:
		s.loop.Post(func() { then(why) })
	}
	return func() { gone = true }
}
func (s *sockets) Return(*pool.Target, loop.Conn) {}

// endpoints of a cluster: 10.1.0.1 and so on.
func endpoints(n int) *cluster.Cluster {
	c := cluster.New(&model.Cluster{Name: model.Free("db"), ConnectTimeout: 3 * time.Second})
	list := &model.Endpoints{}
	for i := range n {
		list.Endpoints = append(list.Endpoints, model.Endpoint{Weight: 1, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}), 5432)})
	}
	c.SetEndpoints(list)
	return c
}

// TestConnectAgain: a connection for which no byte has passed is tried on other endpoints: on each once, on five at most, each
// for as long as the cluster's connect timeout says; what is reached is used, and otherwise the last failure is the answer.
func TestConnectAgain(t *testing.T) {
	always := func(why failure.Reason) func(netip.AddrPort) failure.Reason {
		return func(netip.AddrPort) failure.Reason { return why }
	}
	third := func(a netip.AddrPort) failure.Reason {
		if a.Addr() == netip.MustParseAddr("10.1.0.3") {
			return failure.None
		}
		return failure.ConnectFailed
	}
	for _, c := range []struct {
		name      string
		endpoints int
		is        func(netip.AddrPort) failure.Reason
		wish      relay.Wish
		attempts  int // 0: until the third is found
		why       failure.Reason
		took      time.Duration
	}{
		{"all refuse", 9, always(failure.ConnectFailed), relay.Wish{}, 5, failure.ConnectFailed, 0},
		{"all are silent", 9, always(failure.ConnectTimeout), relay.Wish{}, 5, failure.ConnectTimeout, 15 * time.Second},
		{"there are two", 2, always(failure.ConnectFailed), relay.Wish{}, 2, failure.ConnectFailed, 0},
		{"there is one", 1, always(failure.ConnectTimeout), relay.Wish{}, 1, failure.ConnectTimeout, 3 * time.Second},
		{"there is none", 0, always(failure.None), relay.Wish{}, 0, failure.NoEndpoint, 0},
		{"as often as is said", 9, always(failure.ConnectFailed), relay.Wish{Attempts: 2}, 2, failure.ConnectFailed, 0},
		{"by hash", 4, always(failure.ConnectFailed), relay.Wish{Source: netip.MustParseAddr("10.9.0.1")}, 4, failure.ConnectFailed, 0},
		{"one of three is well", 3, third, relay.Wish{}, 0, failure.None, 0},
	} {
		w := sim.New(sim.Config{Seed: 3})
		l := w.NewLoop(netip.MustParseAddr("10.0.0.1"))
		s := &sockets{loop: l, is: c.is}
		to := endpoints(c.endpoints)
		rec := &record.Record{}
		var found *cluster.Endpoint
		var why failure.Reason
		var began, took time.Duration
		answers := 0
		l.Post(func() {
			began = l.Now()
			relay.FindAs(c.wish, l, s, to, rand.New(rand.NewPCG(1, 2)), rec, func(_ loop.Conn, ep *cluster.Endpoint, f *failure.Failure) {
				answers++
				if found = ep; f != nil {
					why = f.Reason
				}
				took = l.Now() - began
			})
		})
		w.Run(time.Minute)
		if answers != 1 || why != c.why || (found != nil) != (c.why == failure.None) {
			t.Errorf("%s: %d answers, %v", c.name, answers, why)
		}
		if c.attempts > 0 && len(s.asked) != c.attempts || len(s.asked) > c.endpoints || rec.NAttempts != len(s.asked) {
			t.Errorf("%s: %d endpoints were tried, %d are in the record, want %d", c.name, len(s.asked), rec.NAttempts, c.attempts)
		}
		seen := map[netip.AddrPort]bool{}
		for i, a := range s.asked {
			if seen[a] {
				t.Errorf("%s: %v was tried twice", c.name, a)
			}
			seen[a] = true
			if s.waits[i] != 3*time.Second {
				t.Errorf("%s: an attempt has %v", c.name, s.waits[i])
			}
		}
		if took < c.took || took > c.took+time.Second {
			t.Errorf("%s: took %v, want about %v", c.name, took, c.took)
		}
		if found != nil && found.Address() != netip.MustParseAddrPort("10.1.0.3:5432") {
			t.Errorf("%s: found %v", c.name, found.Address())
		}
	}
}

// TestConnectGivenUp: a client that goes away while endpoints are tried ends it.
func TestConnectGivenUp(t *testing.T) {
	w := sim.New(sim.Config{Seed: 3})
	l := w.NewLoop(netip.MustParseAddr("10.0.0.1"))
	s := &sockets{loop: l, is: func(netip.AddrPort) failure.Reason { return failure.ConnectTimeout }}
	l.Post(func() {
		search := relay.Find(l, s, endpoints(9), rand.New(rand.NewPCG(1, 2)), &record.Record{}, func(loop.Conn, *cluster.Endpoint, *failure.Failure) {
			t.Error("an answer for whom nobody waits")
		})
		l.Arm(&loop.Timer{Expired: search.Cancel}, 4*time.Second)
	})
	w.Run(time.Minute)
	if len(s.asked) != 2 {
		t.Errorf("%d endpoints were tried in 4 s, each has 3 s", len(s.asked))
	}
}
