package sim

import "time"

// pipe is one direction between two sockets: what is in flight arrives in order, each segment in its own time;
// what has arrived waits to be read. Both together are bounded by the window.
type pipe struct {
	world   *World
	from    *conn // told when there is room again
	to      *conn // told when something arrives; nil until it is adopted
	flying  int   // bytes
	buf     []byte
	last    time.Duration // arrival of the last segment: none overtakes it
	fin     bool          // arrived
	rst     bool          // arrived
	cut     bool          // nobody reads any more
	starved bool          // the writer found no room

	window  int           // 0: the world's
	most    int           // bytes of a segment, 0: any; see World.Slow
	every   time.Duration // least time between two segments
	sent    int           // bytes that were put into it
	cutting bool          // it breaks when left more bytes have been
	left    int
}

// send takes what fits of p and answers how much that was.
func (p *pipe) send(b []byte) int {
	if p.cut || p.cutting && p.left < 0 {
		return len(b)
	}
	window := p.world.cfg.Window
	if p.window > 0 {
		window = p.window
	}
	if p.most > 0 {
		window = min(window, 16*p.most)
	}
	n := min(window-p.flying-len(p.buf), len(b))
	if n <= 0 {
		p.starved = true
		return 0
	}
	if n = p.world.some(n); p.most > 0 {
		n = min(n, p.most)
	}
	if p.cutting {
		if p.left == 0 {
			p.sever()
			return len(b)
		}
		n = min(n, p.left)
		p.left -= n
	}
	p.sent += n
	segment := append([]byte(nil), b[:n]...)
	p.flying += n
	lost := p.world.rng.Float64() < p.world.cfg.Resets
	p.arrive(func() {
		p.flying -= n
		switch {
		case lost:
			p.reset()
			p.from.arrived(func() { p.from.broken() })
		case p.rst: // nothing arrives behind a reset
		case p.cut:
			p.from.arrived(func() { p.from.broken() }) // bytes for a closed socket: it answers RST
		default:
			p.buf = append(p.buf, segment...)
		}
	})
	p.starved = n < len(b)
	return n
}

// sever breaks the connection behind what was sent.
func (p *pipe) sever() {
	p.left = -1
	p.arrive(func() {
		p.reset()
		p.from.arrived(func() { p.from.broken() })
	})
}

// end sends FIN.
func (p *pipe) end() { p.arrive(func() { p.fin = true }) }

// abort sends RST, which overtakes nothing but ends everything.
func (p *pipe) abort() { p.arrive(p.reset) }

func (p *pipe) reset() {
	p.rst = true
}

// arrive has f done after a random delay and in order, then tells the reader.
func (p *pipe) arrive(f func()) {
	at := max(p.world.now+p.world.delay(), p.last+p.every)
	p.last = at
	p.world.after(at-p.world.now, func() {
		f()
		if p.to != nil {
			p.to.wake()
		}
	})
}

// read moves bytes out of the pipe into b.
func (p *pipe) read(b []byte) int {
	n := min(len(b), len(p.buf))
	if n > 0 {
		n = p.world.some(n)
	}
	copy(b, p.buf[:n])
	p.buf = p.buf[n:]
	if len(p.buf) == 0 {
		p.buf = nil
	}
	if n > 0 && p.starved {
		p.starved = false
		p.world.after(p.world.delay(), func() { p.from.writable() })
	}
	return n
}
