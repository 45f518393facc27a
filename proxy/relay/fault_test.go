package relay_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/relay"
)

const all = 1_000_000

// faulty is a world whose relays have a fault.
func faulty(t *testing.T, f model.Fault) *world {
	w := newWorld(t, relay.Config{})
	w.bare = true
	w.options.Fault = &f
	return w
}

func TestFaultResets(t *testing.T) {
	for _, delay := range []time.Duration{0, 50 * time.Millisecond} {
		w := faulty(t, model.Fault{Reset: true, AbortShare: all, Delay: delay, DelayShare: all})
		began := time.Now()
		w.resetPair()
		if took := time.Since(began); took < delay {
			t.Errorf("reset after %v", took)
		}
		if r := w.record(); r.Reason != "fault_injected" || r.RequestBytes != 0 {
			t.Errorf("%+v", r)
		}
	}
}

// resetPair asserts that both ends of a relay are reset, the client's perhaps while it connects.
func (w *world) resetPair() {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer ln.Close()
	to := netip.MustParseAddrPort(ln.Addr().String())
	addr := w.accept(func(c loop.Conn) loop.Handler {
		d := &dialer{w: w, down: c}
		d.up = w.loop.Dial(loop.Dial{Address: to}, d)
		return quiet{}
	})
	c, err := net.Dial("tcp", addr)
	switch {
	case err == nil:
		w.t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		wantReset(w.t, c)
	case !errors.Is(err, syscall.ECONNRESET):
		w.t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	wantReset(w.t, s)
}

// TestFaultDelays: nothing passes before the delay is over, and nothing is lost.
func TestFaultDelays(t *testing.T) {
	const delay = 100 * time.Millisecond
	w := faulty(t, model.Fault{Delay: delay, DelayShare: all})
	began := time.Now()
	c, s := w.pair()
	write(t, c, "question")
	write(t, s, "hello")
	read(t, s, "question")
	read(t, c, "hello")
	if took := time.Since(began); took < delay {
		t.Errorf("it took only %v", took)
	}
	s.Close()
	wantEOF(t, c)
	c.Close()
	if r := w.record(); r.Reason != "" {
		t.Errorf("%+v", r)
	}
}

// TestFaultDelayOfWhoGoesAway: who ends during the delay ends the relay.
func TestFaultDelayOfWhoGoesAway(t *testing.T) {
	w := faulty(t, model.Fault{Delay: time.Hour, DelayShare: all})
	c, s := w.pair()
	w.until("the relay", func() bool { return w.opened == 1 })
	_ = c.SetLinger(0)
	c.Close()
	wantReset(t, s)
	if r := w.record(); r.Reason != "downstream_gone" {
		t.Errorf("%+v", r)
	}
}

// TestFaultRate: what the server says comes at the rate that is given, whole; what the client says is not slowed down.
func TestFaultRate(t *testing.T) {
	w := faulty(t, model.Fault{Rate: 400_000, RateShare: all})
	c, s := w.pair()
	data := bytes.Repeat([]byte("0123456789"), 20_000)
	began := time.Now()
	go func() {
		_, _ = s.Write(data)
		_ = s.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if took := time.Since(began); err != nil || !bytes.Equal(got, data) || took < 400*time.Millisecond {
		t.Errorf("%d bytes in %v, %v", len(got), took, err)
	}
	began = time.Now()
	go func() {
		_, _ = c.Write(bytes.Repeat(data, 20))
		_ = c.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, s); n != int64(20*len(data)) || err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%d bytes in %v, %v", n, time.Since(began), err)
	}
	if r := w.record(); r.ResponseBytes != int64(len(data)) || r.Reason != "" {
		t.Errorf("%+v", r)
	}
}

// TestFaultShares: chance decides by the shares.
func TestFaultShares(t *testing.T) {
	for share, reset := range map[uint32]bool{0: false, 500_000: false, 500_001: true} {
		w := newWorld(t, relay.Config{Random: func() uint64 { return 1 << 63 }}) // half
		w.bare = true
		w.options.Fault = &model.Fault{Reset: true, AbortShare: share, Rate: 1, Delay: time.Hour}
		if reset {
			w.resetPair()
			continue
		}
		c, s := w.pair()
		write(t, s, "hello")
		read(t, c, "hello")
	}
}
