package loop_test

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// seat is a loop with what may be placed on it.
type seat struct{ *loop.Epoll }

func (s *seat) Gauge() loop.Gauge { return s.Epoll }

// idle serves connections that say nothing.
type idle struct{ c loop.Conn }

func (*idle) Opened()           {}
func (*idle) Data(p []byte) int { return len(p) }
func (h *idle) EOF()            { h.c.Close() }
func (*idle) Writable()         {}
func (*idle) Closed(error)      {}

// hall is some loops that accept from one socket, as those of a proxy do.
func hall(t *testing.T, loops int) (seats []*seat, dial func(n int) []net.Conn) {
	fd, addr := listen(t, "127.0.0.1:0")
	for range loops {
		seats = append(seats, &seat{start(t)})
	}
	var served atomic.Int64
	for _, s := range seats {
		ln, err := s.Listen(fd, func(in loop.Incoming) {
			in.Adopt(loop.Calmest(s, seats).Epoll, func(c loop.Conn) loop.Handler { served.Add(1); return &idle{c} })
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(ln.Close)
	}
	return seats, func(n int) (all []net.Conn) {
		want := served.Load() + int64(n)
		for range n {
			c, err := net.Dial("tcp", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
			t.Cleanup(func() { c.Close() })
		}
		until(t, "connections to be served", func() bool { return served.Load() == want })
		return all
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) { // poll
		if time.Now().After(end) {
			t.Fatal("waited in vain for ", what)
		}
	}
}

// spread answers by how many connections the loops differ.
func spread(seats []*seat) (diff int64, all []int64) {
	least, most := seats[0].Accepted(), seats[0].Accepted()
	for _, s := range seats {
		n := s.Accepted()
		least, most, all = min(least, n), max(most, n), append(all, n)
	}
	return most - least, all
}

// TestSpread: however few or many connections come, the loops have as many each, and never differ by more than Slack: two loops
// may accept at the very same moment and choose alike, and a loop whose thread the machine has no time for looks busy.
func TestSpread(t *testing.T) {
	for _, loops := range []int{2, 4} {
		for _, n := range []int{4, 16, 200} {
			t.Run(fmt.Sprintf("%d on %d", n, loops), func(t *testing.T) {
				var seats []*seat
				var dial func(int) []net.Conn
				var all []net.Conn
				diff, counts := int64(2), []int64(nil)
				for try := 0; try < 3 && diff > 1; try++ {
					seats, dial = hall(t, loops)
					all = dial(n)
					diff, counts = spread(seats)
					t.Logf("%v", counts)
				}
				if diff > 1 {
					t.Errorf("three times out of three the loops do not have alike: %v", counts)
				}
				if most := loop.Slack(int64(n), loops); diff > most {
					t.Errorf("the loops have %v, which differ by more than %d", counts, most)
				}
				for _, c := range all[:n/2] {
					c.Close()
				}
				until(t, "connections to end", func() bool {
					sum := int64(0)
					for _, s := range seats {
						sum += s.Accepted()
					}
					return sum == int64(n-n/2)
				})
				dial(n)
				if diff, counts = spread(seats); diff > loop.Slack(int64(2*n), loops) {
					t.Errorf("after half of them have gone and others come: %v", counts)
				}
			})
		}
	}
}

// TestSpreadWhileBusy: connections that come while one loop is at work go to the other one, but not all of many.
func TestSpreadWhileBusy(t *testing.T) {
	for _, n := range []int{4, 16, 200} {
		seats, dial := hall(t, 2)
		var stop atomic.Bool
		var work func()
		work = func() {
			for until := time.Now().Add(5 * time.Millisecond); time.Now().Before(until); {
			}
			if !stop.Load() {
				seats[0].Post(work)
			}
		}
		seats[0].Post(work)
		until(t, "the loop to be busy", func() bool { return seats[0].Busy() > 900 })
		dial(n)
		counts := [2]int64{seats[0].Accepted(), seats[1].Accepted()}
		stop.Store(true)
		t.Logf("%d while the first is busy: %v", n, counts)
		if counts[1] < counts[0] {
			t.Errorf("of %d the busy loop has %d", n, counts[0])
		}
		if slack := loop.Slack(int64(n), 2); counts[1]-counts[0] > slack+1 {
			t.Errorf("of %d the busy loop has only %d; they may differ by %d", n, counts[0], slack)
		}
		until(t, "the loop to rest", func() bool { return seats[0].Busy() < 100 })
	}
}
