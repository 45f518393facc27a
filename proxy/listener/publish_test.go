package listener_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

// published is a world with a published port that has a mode, and who calls it: with an identity of the mesh, and with another root's.
type published struct {
	*world
	addr          string
	mode          atomic.Uint32
	held          atomic.Int64
	good, foreign *tls.Config
}

func publish(t *testing.T, mode model.MTLSMode, known model.Protocol) *published {
	t.Helper()
	return publishWith(t, mode, known, func(*listener.Config) {})
}

func publishWith(t *testing.T, mode model.MTLSMode, known model.Protocol, change func(*listener.Config)) *published {
	t.Helper()
	who := identities(t, peer.String(), "spiffe://tulle.local/ns/default/sa/db")
	other := identities(t, peer.String())
	p := &published{}
	p.mode.Store(uint32(mode))
	door := mtls.ServerConfig(who[1], mtls.ServerOptions{Outside: true})
	p.world = buildWorld(t, func(_ *world, cfg *listener.Config) {
		cfg.Mode = func(uint16) model.MTLSMode { return model.MTLSMode(p.mode.Load()) }
		cfg.Handshake = func(raw loop.Conn, h loop.Handler) listener.Secure { return mtls.Server(raw, door, h) }
		cfg.Connect = func(uint16, time.Duration) failure.Reason { p.held.Add(1); return failure.None }
		cfg.Disconnect = func(uint16) { p.held.Add(-1) }
		change(cfg)
	})
	p.port.protocol = known
	p.addr = p.accept(p.worker.Publish(8080, 0))
	client := func(s source, protocols ...string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{s.id.Certificate}, NextProtos: protocols, ServerName: "db.default"}
	}
	p.good, p.foreign = client(who[0], "h2", "http/1.1"), client(other[0])
	return p
}

// secure is a client that shows a certificate; what it says first is on its way.
func (p *published) secure(cfg *tls.Config) *tls.Conn {
	p.t.Helper()
	c := tls.Client(p.dial(p.addr), cfg)
	p.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// refused reports whether a TLS client gets nowhere.
func refused(c *tls.Conn) bool {
	_, err := c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	return err != nil
}

const hello = "GET / HTTP/1.1\r\n\r\n"

func TestStrict(t *testing.T) {
	p := publish(t, model.ModeStrict, model.ProtocolHTTP)
	if c := p.secure(p.foreign); !refused(c) {
		t.Error("an identity of another root is let in")
	}
	if c := p.secure(&tls.Config{InsecureSkipVerify: true}); !refused(c) {
		t.Error("a client without a certificate is let in")
	}
	c := p.dial(p.addr)
	write(t, c, "SSH-2.0-x\r\n")
	wantReset(t, c)
	p.until("nothing is counted any more", func() bool { return p.held.Load() == 0 })
	s := p.secure(p.good)
	write(t, s, hello)
	read(t, s, "HTTP got "+hello)
	if x := p.context(); !x.MTLS || !x.Publish || x.Peer.ID != peer.String() || x.Caller.Principal != peer.String() || x.Refuse != failure.None {
		t.Errorf("%+v", x)
	}
	// Plaintext that is HTTP is told why, a byte at a time too.
	c = p.dial(p.addr)
	write(t, c, "G")
	write(t, c, hello[1:])
	p.until("the plaintext request", func() bool { return len(p.contexts) == 2 })
	if x := p.contexts[1]; x.Refuse != failure.MTLSRequired || x.MTLS {
		t.Errorf("%+v", x)
	}
}

func TestPermissive(t *testing.T) {
	for _, known := range []model.Protocol{model.ProtocolHTTP, model.LearnedHTTP, model.ProtocolUnknown} {
		p := publish(t, model.ModePermissive, known)
		c := p.dial(p.addr)
		write(t, c, hello)
		read(t, c, "HTTP got "+hello)
		s := p.secure(p.good)
		write(t, s, hello)
		read(t, s, "HTTP got "+hello)
		if p.contexts[0].MTLS || !p.contexts[1].MTLS {
			t.Errorf("%s: who is who: %+v", known, p.contexts)
		}
		if c := p.secure(p.foreign); !refused(c) {
			t.Errorf("%s: an identity of another root is let in", known)
		}
	}
}

// TestStrictTold: who is refused for want of mutual TLS is in the log of a workload's proxy, with the address and the policy, and, where
// it spoke something else than HTTP, in a record; lines are bounded.
func TestStrictTold(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	said := func() string {
		mu.Lock()
		defer mu.Unlock()
		return log.String()
	}
	p := publishWith(t, model.ModeStrict, model.ProtocolTCP, func(cfg *listener.Config) {
		cfg.ModeBy = func(uint16) string { return "AuthenticationPolicy/default/front" }
		cfg.Log = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return log.Write(b)
		}), &slog.HandlerOptions{Level: slog.LevelWarn}))
	})
	c := p.dial(p.addr)
	write(t, c, "SSH-2.0-x\r\n")
	wantReset(t, c)
	p.until("the record", func() bool { return len(p.records) == 1 })
	r := p.records[0]
	if r.Reason != "mtls_required" || !r.TCP || !r.Published || r.From.String() != "127.0.0.1" || r.Port != 3306 || r.MTLS ||
		r.Decision.Refusal.By != "AuthenticationPolicy/default/front" || !strings.Contains(r.Decision.Refusal.Cause, "Strict") {
		t.Errorf("%+v", r)
	}
	for _, part := range []string{"msg=mtls_required", "caller=" + c.LocalAddr().String(), "service=db.default:3306", "policy=AuthenticationPolicy/default/front", "why="} {
		if !strings.Contains(said(), part) {
			t.Errorf("without %q: %s", part, said())
		}
	}
	if c := p.secure(p.foreign); !refused(c) {
		t.Error("an identity of another root is let in")
	}
	p.until("the line about it", func() bool { return strings.Contains(said(), "msg=tls_failed") })
	if !strings.Contains(said(), "error=") {
		t.Error(said())
	}
	for range 100 {
		c := p.dial(p.addr)
		write(t, c, "SSH-2.0-x\r\n")
		wantReset(t, c)
	}
	p.until("all records", func() bool { return len(p.records) == 101 })
	if n := strings.Count(said(), "\n"); n > 60 { // one a second, on a machine that is however slow
		t.Errorf("%d lines", n)
	}
}

// writerFunc is an io.Writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestPermissiveLate: a server that speaks first does so at once, and a client that is silent at first may still begin TLS.
func TestPermissiveLate(t *testing.T) {
	for _, known := range []model.Protocol{model.ProtocolTCP, model.LearnedClientFirst, model.ProtocolUnknown} {
		p := publish(t, model.ModePermissive, known)
		c := p.dial(p.addr)
		up := p.arrives()
		write(t, up, "220 welcome")
		read(t, c, "220 welcome")
		write(t, c, "HELO")
		read(t, up, "HELO")

		raw := p.dial(p.addr)
		silent := p.arrives() // the program is connected to before the client speaks
		s := tls.Client(raw, p.good)
		if err := s.Handshake(); err != nil {
			t.Fatalf("%s: %v", known, err)
		}
		wantReset(t, silent)
		write(t, s, "\x01\x02")
		up = p.arrives()
		read(t, up, "\x01\x02")
		write(t, up, "yes")
		read(t, s, "yes")
		s.Close()

		// TLS that does not name the service is the program's own.
		own := p.secure(&tls.Config{InsecureSkipVerify: true, ServerName: "shop.example"})
		go func() { _ = own.Handshake() }()
		up = p.arrives()
		first := make([]byte, 1)
		if _, err := io.ReadFull(up, first); err != nil || first[0] != 22 {
			t.Errorf("%s: %v %v", known, first, err)
		}
	}
}

// TestModeChanges: what is not allowed any more ends, nothing else.
func TestModeChanges(t *testing.T) {
	p := publish(t, model.ModePermissive, model.ProtocolTCP)
	const each = 100
	var plain, proven []net.Conn
	for range each {
		c := p.dial(p.addr)
		write(t, c, "a")
		read(t, p.arrives(), "a")
		s := p.secure(p.good)
		write(t, s, "b")
		// The program may have been connected to for plaintext before the client's first bytes came.
		for got := make([]byte, 1); ; {
			if n, _ := p.arrives().Read(got); n == 1 {
				break
			}
		}
		plain, proven = append(plain, c), append(proven, s)
	}
	p.mode.Store(uint32(model.ModeStrict))
	p.do(p.worker.Review)
	for _, c := range plain {
		wantReset(t, c)
	}
	p.until("only those remain", func() bool { return p.held.Load() == each })
	for _, c := range proven {
		write(t, c, "c")
	}
	p.mode.Store(uint32(model.ModeDisabled))
	p.do(p.worker.Review)
	for _, c := range proven {
		if _, err := io.ReadAll(c); err == nil {
			t.Error("a connection with TLS goes on, or ends as if it were complete")
		}
	}
	p.until("nothing remains", func() bool { return p.held.Load() == 0 })
}

// TestPublishedTwice: two ports of the service that are one of the workload's have each their own mode.
func TestPublishedTwice(t *testing.T) {
	w := buildWorld(t, func(_ *world, cfg *listener.Config) {
		cfg.Served = func(service uint16) (listener.OwnPort, bool) {
			return listener.OwnPort{Port: 8080, Protocol: model.ProtocolHTTP, Service: model.PortName{Service: model.ServiceName{Namespace: "default", Name: "db"}, Port: service}}, true
		}
		cfg.Mode = func(service uint16) model.MTLSMode {
			if service == 81 {
				return model.ModeStrict
			}
			return model.ModePermissive
		}
	})
	for service, want := range map[uint16]failure.Reason{80: failure.None, 81: failure.MTLSRequired} {
		c := w.dial(w.accept(w.worker.Publish(8080, service)))
		write(t, c, hello)
		if x := w.context(); x.Refuse != want || x.Own.Service.Port != service {
			t.Errorf("port %d: %+v", service, x)
		}
		w.mu.Lock()
		w.contexts = nil
		w.mu.Unlock()
	}
}
