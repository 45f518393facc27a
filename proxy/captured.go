package proxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/selftest"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// The test of capture: whether the program's traffic still goes through this proxy (package selftest).

// Times of the test.
const (
	eventPause = 100 * time.Millisecond // between two checks, however much changes
	probeIdle  = 5 * time.Second        // for a challenge, once somebody has connected
	afterOther = 5 * time.Second        // before the first check, where another proxy is still there
)

// captured is what the test has found.
type captured struct {
	sockets *selftest.Sockets            // nil: the supervisor knows no such test
	alarm   atomic.Pointer[captureAlarm] // nil: all is well
	failed  atomic.Uint64                // checks
	closed  bool                         // the barrier may be up; only testCapture's
}

type captureAlarm struct {
	why   string
	since time.Time
}

// probe serves connections that only the test of capture makes: listener.Config.Probe.
func (c *captured) probe(in loop.Incoming, wanted netip.AddrPort, on loop.Loop) bool {
	if c.sockets == nil || !selftest.Probe(wanted) {
		return false
	}
	in.Adopt(on, func(conn loop.Conn) loop.Handler {
		a := &answering{conn: conn, secret: c.sockets.Secret}
		a.timer.Expired = conn.Reset
		on.Arm(&a.timer, probeIdle)
		return a
	})
	return true
}

// name answers what is asked for to find out whether questions for names reach this proxy: dns.Config.Prove.
func (c *captured) name(name string) string {
	if c.sockets == nil {
		return ""
	}
	return selftest.ProveName(c.sockets.Secret, name)
}

// answering answers one challenge.
type answering struct {
	conn   loop.Conn
	secret []byte
	timer  loop.Timer
}

// Opened implements loop.Handler.
func (a *answering) Opened() {}

// Data implements loop.Handler.
func (a *answering) Data(p []byte) int {
	if len(p) < selftest.ChallengeSize {
		return 0
	}
	a.conn.Write(selftest.Prove(a.secret, p[:selftest.ChallengeSize], a.conn.Remote()))
	a.conn.Close()
	return len(p)
}

// EOF implements loop.Handler.
func (a *answering) EOF() { a.conn.Close() }

// Writable implements loop.Handler.
func (a *answering) Writable() {}

// Closed implements loop.Handler.
func (a *answering) Closed(error) { a.conn.Loop().Disarm(&a.timer) }

// testCapture looks again and again, until ctx ends or another proxy has taken over.
func (p *Proxy) testCapture(ctx context.Context) {
	events := make(chan struct{}, 1)
	stop := selftest.Events(p.cfg.Bootstrap, func() {
		select {
		case events <- struct{}{}:
		default:
		}
	})
	defer stop()
	var m selftest.Monitor
	begun := time.Now()
	wait := time.NewTimer(0)
	defer wait.Stop()
	if p.cfg.Bootstrap.Overlap {
		wait.Reset(afterOther) // two proxies have one set of sockets
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		case <-events:
			select {
			case <-ctx.Done():
				return
			case <-time.After(eventPause):
			}
		}
		if p.retired.Load() {
			return
		}
		err := p.capture.sockets.Check()
		if ctx.Err() != nil || p.retired.Load() {
			return
		}
		p.tested(&m, err, time.Since(begun))
		wait.Reset(m.Next(rand.Float64()))
	}
}

// tested takes what a check has found.
func (p *Proxy) tested(m *selftest.Monitor, err error, now time.Duration) {
	closed := p.cfg.Bootstrap.FailClosed
	if err != nil {
		p.capture.failed.Add(1)
		if closed { // at once: after a check that failed by chance only what does not belong here has been stopped
			if err := p.capture.sockets.Close(); err != nil {
				p.cfg.Log.Error("the program's network cannot be cut off: end the workload", "error", err)
			}
			p.capture.closed = true
		}
	} else if p.capture.closed {
		if err := p.capture.sockets.Open(); err != nil {
			p.cfg.Log.Error("the program's network stays cut off: start the workload again", "error", err)
		} else {
			p.capture.closed = false
		}
	}
	change := m.Note(err != nil, now)
	if up, since := m.Alarm(); up && err != nil {
		p.capture.alarm.Store(&captureAlarm{why: oneLine(err), since: time.Now().Add(since - now)})
	}
	switch change {
	case selftest.Raised:
		what := "what it sends may go round its policies"
		if closed {
			what = "its network is cut off and it takes no requests until that is repaired"
			p.client.SetReady(false)
		}
		p.cfg.Log.Error("the program's traffic does not go through its proxy: "+what+"; somebody with rights over this machine has changed the network that tulle run has made: start the workload again, and find out who ('nft list ruleset' and 'ip link', 'ip route show table local' in its network namespace)",
			"found", oneLine(err), "pid", p.cfg.Bootstrap.Supervisor)
	case selftest.Ended:
		a := p.capture.alarm.Swap(nil)
		p.client.SetReady(p.announced.Load() && !p.leaving.Load())
		if a != nil {
			p.cfg.Log.Warn("the program's traffic goes through its proxy again", "after", time.Since(a.since).Round(time.Millisecond).String())
		}
	}
	p.tellCapture()
}

// tellCapture tells the control plane how it stands; the client sends what has changed.
func (p *Proxy) tellCapture() {
	if a := p.capture.alarm.Load(); a != nil {
		p.client.Captured(a.why, a.since, p.cfg.Bootstrap.FailClosed)
		return
	}
	p.client.Captured("", time.Time{}, false)
}

// errNotCaptured is why a workload that fails closed takes no requests.
var errNotCaptured = errors.New("the program's traffic does not go through its proxy, see the proxy's log")

// shut reports whether the workload takes no requests because of what the test has found.
func (p *Proxy) shut() bool { return p.cfg.Bootstrap.FailClosed && p.capture.alarm.Load() != nil }

// capturing tells of the test: observe.Config.Capture.
func (p *Proxy) capturing() observe.Capture {
	return observe.Capture{Tested: p.capture.sockets != nil, Broken: p.capture.alarm.Load() != nil, Failed: p.capture.failed.Load()}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// openCapture takes over what the test needs.
func (p *Proxy) openCapture(b *bootstrap.Bootstrap) {
	p.capture.sockets = selftest.Of(b)
	p.capture.closed = b.FailClosed // the proxy before this one may have left the barrier
}
