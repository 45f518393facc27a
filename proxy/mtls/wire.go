package mtls

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// wire is the net.Conn below the tls.Conn. During the handshake its Read blocks the handshake's goroutine and its
// Write posts to the loop; afterwards both are called on the loop only and never block.
type wire struct {
	c *Conn

	mu    sync.Mutex
	fed   sync.Cond // in, ended, dead or place has changed
	in    []byte    // arrived during the handshake
	out   []byte    // to be written by the loop
	sent  bool      // a post that writes out is under way
	ended bool      // the peer has ended
	dead  bool      // the connection below is gone, or the handshake was given up
	place bool      // the gate lets the handshake compute

	shown *x509.Certificate // ours, by a ServerContext; belongs to the handshake, then to the loop

	open    bool   // the handshake is over
	records []byte // what Read gives then, where the tls.Conn's own buffer cannot be reached
	sealing bool   // Write collects in sealed
	sealed  []byte
}

// wouldBlock tells tls.Conn that there is nothing now; it keeps its state because the error is temporary.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read now" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

var (
	errWouldBlock net.Error = wouldBlock{}
	errDead                 = errors.New("the connection ended")
)

func (w *wire) Read(p []byte) (int, error) {
	if w.open {
		if len(w.records) == 0 {
			return 0, errWouldBlock
		}
		n := copy(p, w.records)
		w.records = w.records[n:]
		return n, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.in) == 0 && !w.dead && !w.ended {
		w.mu.Unlock()
		w.c.gate.pause(w.c)
		w.await()
		w.c.gate.proceed(w.c)
		w.mu.Lock()
	}
	switch {
	case w.dead:
		return 0, errDead
	case len(w.in) == 0:
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, w.in)
	w.in = w.in[n:]
	return n, nil
}

// await waits for bytes, or that none will come.
func (w *wire) await() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.in) == 0 && !w.dead && !w.ended {
		w.fed.Wait()
	}
}

// awaitPlace waits until the gate lets the handshake compute. One that is dead is let as well, and leaves at once.
func (w *wire) awaitPlace() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.place {
		w.fed.Wait()
	}
}

// allow and forbid are the gate's.
func (w *wire) allow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.place = true
	w.fed.Signal()
}

func (w *wire) forbid() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.place = false
}

func (w *wire) Write(p []byte) (int, error) {
	if w.open {
		if w.sealing {
			w.sealed = w.c.grow(w.sealed, p)
		} else {
			w.c.raw.Write(p) // an alert, or the answer to a KeyUpdate
		}
		return len(p), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return 0, errDead
	}
	w.out = append(w.out, p...)
	if !w.sent {
		w.sent = w.c.loop.Post(w.c.wireOut)
	}
	return len(p), nil
}

// feed gives bytes to the handshake, and reports false when no more should come before it is over.
func (w *wire) feed(p []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.in = append(w.in, p...)
	w.fed.Signal()
	return len(w.in) < enoughEarly
}

// end tells the handshake that the peer has ended.
func (w *wire) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.fed.Signal()
}

// kill ends the handshake's goroutine.
func (w *wire) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	w.fed.Signal()
}

func (w *wire) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

// take answers what the handshake wants written.
func (w *wire) take() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.out
	w.out, w.sent = nil, false
	return out
}

// settle turns the wire over to the loop. What has arrived behind the handshake goes to c.early. It reports
// whether the peer has ended.
func (w *wire) settle(c *Conn) (ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = true
	if raw := rawInput(c.tls); raw != nil {
		c.early = append(c.early, raw.Bytes()...)
	}
	c.releaseRecords()
	c.early = append(c.early, w.in...)
	w.in, w.out = nil, nil
	return w.ended
}

// The rest of net.Conn. Deadlines and Close belong to the loop.

func (w *wire) Close() error                     { return nil }
func (w *wire) LocalAddr() net.Addr              { return net.TCPAddrFromAddrPort(w.c.Local()) }
func (w *wire) RemoteAddr() net.Addr             { return net.TCPAddrFromAddrPort(w.c.Remote()) }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
