package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Cut says where a run breaks one connection: exactly Byte bytes of one direction arrive, then both ends see a reset.
type Cut struct {
	Conn int  // in the order in which connections came about, from 0
	Back bool // the direction from the accepting end
	Byte int
}

// String answers it as ParseCut reads it.
func (c Cut) String() string {
	way := "there"
	if c.Back {
		way = "back"
	}
	return fmt.Sprintf("%d:%s:%d", c.Conn, way, c.Byte)
}

// ParseCut reads what String writes.
func ParseCut(s string) (c Cut, err error) {
	var rest string
	if _, err = fmt.Sscanf(s, "%d:%s", &c.Conn, &rest); err == nil {
		if _, err = fmt.Sscanf(rest, "there:%d", &c.Byte); err != nil {
			c.Back = true
			_, err = fmt.Sscanf(rest, "back:%d", &c.Byte)
		}
	}
	if err != nil {
		return c, fmt.Errorf("%q is no cut; write connection:there:byte or connection:back:byte", s)
	}
	return c, nil
}

// link is a connection as the network knows it.
type link struct{ there, back *pipe }

// join notes a connection that comes about, and cuts it if it is the one.
func (w *World) join(there, back *pipe) {
	if c := w.cfg.Cut; c != nil && c.Conn == len(w.links) {
		p := there
		if c.Back {
			p = back
		}
		p.cutting, p.left = true, c.Byte
	}
	if w.cfg.Narrow {
		for _, p := range [...]*pipe{there, back} {
			p.window = max(w.cfg.Window>>(2*w.rng.IntN(4)), 1024)
		}
	}
	w.links = append(w.links, link{there, back})
}

// Sent answers how many bytes every connection has carried so far, there and back, in the order in which they came about.
func (w *World) Sent() [][2]int {
	var all [][2]int
	for _, l := range w.links {
		all = append(all, [2]int{l.there.sent, l.back.sent})
	}
	return all
}

// Jump lets time d pass in which nothing happens, as when a machine is suspended: everything that is due is late.
func (w *World) Jump(d time.Duration) { w.now += d }

// ShiftWall sets the calendar of all loops forward, or back, by d. Loop.Now does not change.
func (w *World) ShiftWall(d time.Duration) { w.wall += d }

// Reachable undoes Blackhole for connections that begin from now on.
func (w *World) Reachable(addr netip.AddrPort) { delete(w.holes, addr) }

// Slow makes the network carry what c sends and receives in segments of at most so many bytes that arrive at least every
// apart. c must stand.
func (w *World) Slow(c loop.Conn, most int, every time.Duration) {
	s := c.(*conn)
	for _, p := range [...]*pipe{s.tx, s.rx} {
		if p != nil {
			p.most, p.every = max(most, 1), every
		}
	}
}

// Ran answers the loop whose turn the latest Step was, nil if it was no turn.
func (w *World) Ran() *Loop { return w.ran }

// Armed answers how many timers are armed, those of connections included.
func (l *Loop) Armed() int { return l.wheel.Len() }

// Quiet reports whether the loop has no connection and nothing is left to do but for timers.
func (l *Loop) Quiet() bool {
	return len(l.conns)+len(l.posts)+len(l.ready)+len(l.dirty)+len(l.gone)+len(l.enders) == 0
}

// Largest answers the most bytes that one connection of the loop holds: received and not consumed, and written and not sent.
func (l *Loop) Largest() (in, out int) {
	for _, c := range l.conns {
		in, out = max(in, len(c.in)), max(out, len(c.out))
	}
	return in, out
}

// Describe answers what the loop's connections are, for a failure.
func (l *Loop) Describe() []string {
	var all []string
	for _, c := range l.conns {
		s := fmt.Sprintf("%v to %v: %d received, %d to be sent", c.local, c.remote, len(c.in), len(c.out))
		for _, f := range [...]struct {
			is   bool
			name string
		}{{c.connecting, "connecting"}, {c.paused, "paused"}, {c.eof, "eof"}, {c.shut, "shut"}, {c.closing, "closing"}, {c.draining, "draining"},
			{c.rx != nil && c.rx.rst, "reset"}, {c.rx != nil && c.rx.fin, "fin"}, {c.rx != nil && c.rx.cut, "cut"}} {
			if f.is {
				s += ", " + f.name
			}
		}
		all = append(all, s)
	}
	return all
}
