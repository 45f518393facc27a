package relay_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/relay"
)

// world is a real loop with relays, and real sockets around it.
type world struct {
	t      *testing.T
	loop   *loop.Epoll
	relays *relay.Relays

	counters *observe.Recorder
	options  relay.Options
	bare     bool  // connections are not watched
	ends     error // what handlers are told instead of why their connection has ended; nil: the truth

	mu      sync.Mutex
	records []record.Record
	opened  int
	learned []model.Protocol
	most    int // bytes that any connection ever held back
}

func newWorld(t *testing.T, cfg relay.Config) *world {
	l, err := loop.New(loop.Config{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, loop: l, counters: observe.New(observe.Config{}).Recorder()}
	cfg.Loop, cfg.Observer = l, w
	w.relays = relay.New(cfg)
	go l.Run()
	t.Cleanup(l.Close)
	return w
}

func (w *world) Opened(r *record.Record, f *observe.Flow) {
	w.counters.Opened(r, f)
	w.mu.Lock()
	w.opened++
	w.mu.Unlock()
}
func (w *world) Closed(r *record.Record, _ *observe.Flow) { w.Done(r) }
func (w *world) Refused(failure.Reason)                   {}
func (w *world) Done(r *record.Record) {
	w.mu.Lock()
	w.records = append(w.records, *r)
	w.mu.Unlock()
}

// record waits for the only record.
func (w *world) record() record.Record {
	w.t.Helper()
	w.until("a record", func() bool { return len(w.records) > 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.records) != 1 {
		w.t.Fatalf("%d records", len(w.records))
	}
	return w.records[0]
}

func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) { // poll
		w.mu.Lock()
		ok := cond()
		w.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("never came: %s", what)
		}
	}
}

// accept listens on the loop and answers the address.
func (w *world) accept(serve func(c loop.Conn) loop.Handler) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		w.t.Fatal(err)
	}
	ll, err := w.loop.Listen(int(file.Fd()), func(in loop.Incoming) { in.Adopt(w.loop, serve) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { ll.Close(); file.Close(); ln.Close() })
	return ln.Addr().String()
}

// watched notes how much a connection holds back.
type watched struct {
	loop.Conn
	w *world
}

func (c watched) Write(p []byte) {
	c.Conn.Write(p)
	c.w.mu.Lock()
	c.w.most = max(c.w.most, c.Buffered())
	c.w.mu.Unlock()
}

func (c watched) SetHandler(h loop.Handler) {
	if c.w.ends != nil {
		h = ended{h, c.w.ends}
	}
	c.Conn.SetHandler(h)
}

// ended is a handler of a connection that was ended for a reason.
type ended struct {
	loop.Handler
	why error
}

func (e ended) Closed(error) { e.Handler.Closed(e.why) }

// dialer relays what it is the handler of to an address.
type dialer struct {
	w        *world
	down, up loop.Conn
}

func (d *dialer) Opened() {
	defer d.down.Resume()
	if d.w.bare {
		d.w.relays.Start(d.down, d.up, &record.Record{}, d.w.options)
		return
	}
	d.w.relays.Start(watched{d.down, d.w}, watched{d.up, d.w}, &record.Record{}, d.w.options)
}
func (d *dialer) Data([]byte) int  { return 0 }
func (d *dialer) EOF()             {}
func (d *dialer) Writable()        {}
func (d *dialer) Closed(err error) {}

type quiet struct{}

func (quiet) Opened()         {}
func (quiet) Data([]byte) int { return 0 }
func (quiet) EOF()            {}
func (quiet) Writable()       {}
func (quiet) Closed(error)    {}

// pair answers the two ends of a relay.
func (w *world) pair() (client, server *net.TCPConn) {
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
		c.Pause() // until there is a relay: a scratch full that nobody takes is a reset
		return quiet{}
	})
	c := w.dial(addr)
	s, err := ln.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	return c, s.(*net.TCPConn)
}

func (w *world) dial(addr string) *net.TCPConn {
	w.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

func wantEOF(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read %d, %v, want the end", n, err)
	}
}

func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read %d, %v, want a reset", n, err)
	}
}

func TestHalfClose(t *testing.T) {
	w := newWorld(t, relay.Config{})
	c, s := w.pair()
	write(t, c, "question")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	read(t, s, "question")
	wantEOF(t, s)
	write(t, s, "a longer answer")
	read(t, c, "a longer answer")
	s.Close()
	wantEOF(t, c)
	r := w.record()
	if r.RequestBytes != 8 || r.ResponseBytes != 15 || r.Reason != "" || !r.TCP || w.opened != 1 {
		t.Errorf("record %+v, opened %d", r, w.opened)
	}
}

func TestReset(t *testing.T) {
	for _, server := range []bool{true, false} {
		w := newWorld(t, relay.Config{})
		c, s := w.pair()
		from, to, reason := c, s, failure.DownstreamGone
		if server {
			from, to, reason = s, c, failure.UpstreamReset
		}
		write(t, from, "x")
		read(t, to, "x")
		_ = from.SetLinger(0)
		from.Close()
		wantReset(t, to)
		if r := w.record(); r.Reason != reason.Label() {
			t.Errorf("reason %q, want %q", r.Reason, reason.Label())
		}
	}
}

// TestEnded: what was ended for a reason has it in its record.
func TestEnded(t *testing.T) {
	w := newWorld(t, relay.Config{})
	w.ends = &failure.Failure{Reason: failure.Revoked, Cause: errors.New("stolen")}
	c, s := w.pair()
	write(t, c, "x")
	read(t, s, "x")
	_ = c.SetLinger(0)
	c.Close()
	wantReset(t, s)
	if r := w.record(); r.Reason != failure.Revoked.Label() {
		t.Errorf("reason %q", r.Reason)
	}
}

// TestSlowReader: nothing is lost, and no more than the watermark and one read is held.
func TestSlowReader(t *testing.T) {
	w := newWorld(t, relay.Config{})
	c, s := w.pair()
	block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	const blocks = 512 // 32 MiB
	go func() {
		for range blocks {
			if _, err := s.Write(block); err != nil {
				return
			}
		}
		s.Close()
	}()
	w.until("a full connection", func() bool { return w.most > loop.HighWater })
	_ = c.CloseWrite()
	got := make([]byte, len(block))
	for i := range blocks {
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, block) {
			t.Fatalf("block %d: %v", i, err)
		}
	}
	wantEOF(t, c)
	if r := w.record(); r.ResponseBytes != blocks*int64(len(block)) {
		t.Errorf("%d bytes recorded", r.ResponseBytes)
	}
	if w.most > loop.HighWater+loop.ScratchSize {
		t.Errorf("%d bytes were held back", w.most)
	}
}

func TestIdle(t *testing.T) {
	w := newWorld(t, relay.Config{Idle: 30 * time.Millisecond})
	c, s := w.pair()
	wantReset(t, c)
	wantReset(t, s)
	if r := w.record(); r.Reason != failure.IdleTimeout.Label() {
		t.Errorf("reason %q", r.Reason)
	}
	w = newWorld(t, relay.Config{HalfIdle: 30 * time.Millisecond})
	c, _ = w.pair()
	_ = c.CloseWrite()
	wantReset(t, c)
}

// TestEnds: a relay's own bounds end both sides in order.
func TestEnds(t *testing.T) {
	for reason, o := range map[failure.Reason]relay.Options{
		failure.IdleTimeout: {Idle: 30 * time.Millisecond},
		failure.MaxDuration: {MaxDuration: 30 * time.Millisecond, Idle: time.Hour},
	} {
		w := newWorld(t, relay.Config{})
		w.options = o
		c, s := w.pair()
		write(t, c, "hello")
		read(t, s, "hello")
		wantEOF(t, c)
		wantEOF(t, s)
		c.Close()
		s.Close()
		if r := w.record(); r.Reason != reason.Label() || r.RequestBytes != 5 {
			t.Errorf("reason %q, want %q; %d bytes", r.Reason, reason.Label(), r.RequestBytes)
		}
	}
}

// TestSpliced: much goes both ways between plain connections, and every byte is counted.
func TestSpliced(t *testing.T) {
	w := newWorld(t, relay.Config{})
	w.bare = true
	for _, size := range []int{100, 64 << 10, 20 << 20} {
		w.records = nil
		c, s := w.pair()
		question, answer := bytes.Repeat([]byte("question"), size/8), bytes.Repeat([]byte("answer, "), size/8+1)
		go func() { _, _ = c.Write(question); _ = c.CloseWrite() }()
		go func() { _, _ = s.Write(answer); _ = s.CloseWrite() }()
		got := make(chan []byte, 1)
		go func() { b, _ := io.ReadAll(s); got <- b }()
		if b, err := io.ReadAll(c); err != nil || !bytes.Equal(b, answer) {
			t.Errorf("%d bytes of the answer, %v", len(b), err)
		}
		if b := <-got; !bytes.Equal(b, question) {
			t.Errorf("%d bytes of the question", len(b))
		}
		if r := w.record(); r.RequestBytes != int64(len(question)) || r.ResponseBytes != int64(len(answer)) || r.Reason != "" {
			t.Errorf("%d and %d bytes are recorded, %q", r.RequestBytes, r.ResponseBytes, r.Reason)
		}
	}
}

// TestMany uses relays again and again.
func TestMany(t *testing.T) {
	w := newWorld(t, relay.Config{})
	for i := range 20 {
		c, s := w.pair()
		write(t, c, "hello")
		read(t, s, "hello")
		c.Close()
		wantEOF(t, s)
		s.Close()
		w.until("its end", func() bool { return len(w.records) == i+1 })
	}
	for _, r := range w.records {
		if r.RequestBytes != 5 || r.ResponseBytes != 0 {
			t.Errorf("record %+v", r)
		}
	}
	done := make(chan int)
	w.loop.Post(func() { done <- w.relays.Len() })
	if n := <-done; n != 0 {
		t.Errorf("%d relays are left", n)
	}
}

// serveOpen makes the server's side of relays for port 80, whose program is at the address answered second.
func (w *world) serveOpen() (addr string, program net.Listener) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { ln.Close() })
	to := netip.MustParseAddrPort(ln.Addr().String())
	srv := &relay.Server{
		Relays: w.relays,
		Dial:   func(port uint16, o *relay.Open) (loop.Dial, bool) { return loop.Dial{Address: to}, port == 80 },
		Learn: func(port uint16, p model.Protocol) {
			w.mu.Lock()
			w.learned = append(w.learned, p)
			w.mu.Unlock()
		},
	}
	return w.accept(func(c loop.Conn) loop.Handler { return srv.Serve(c, 80, nil, &record.Record{}) }), ln
}

func open(o relay.Open) string { return string(relay.AppendOpen(nil, &o)) }

func TestServer(t *testing.T) {
	for _, c := range []struct {
		name          string
		client        []string // written one after the other
		server        bool     // the program speaks first
		want          string   // what the program gets
		learned       model.Protocol
		reset, cancel bool
	}{
		{name: "client first", client: []string{open(relay.Open{Port: 80}) + "hello"}, want: "hello", learned: model.LearnedClientFirst},
		{name: "in pieces", client: []string{"\x01", open(relay.Open{Port: 80})[1:5], open(relay.Open{Port: 80})[5:] + "hel", "lo"}, want: "hello", learned: model.LearnedClientFirst},
		{name: "server first", client: []string{open(relay.Open{Port: 80, Silent: true})}, server: true, learned: model.LearnedServerFirst},
		{name: "silent, then client", client: []string{open(relay.Open{Port: 80, Silent: true}), "\x02hello"}, want: "hello", learned: model.LearnedClientFirst},
		{name: "silent, then cancelled", client: []string{open(relay.Open{Port: 80, Silent: true}), "\x03"}, cancel: true},
		{name: "other port", client: []string{open(relay.Open{Port: 81})}, reset: true},
		{name: "no frame", client: []string{"\x01\xff\xff"}, reset: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, relay.Config{})
			addr, ln := w.serveOpen()
			conn := w.dial(addr)
			for _, s := range c.client {
				write(t, conn, s)
			}
			if c.reset {
				wantReset(t, conn)
				if r := w.record(); r.Reason != failure.BadRequest.Label() {
					t.Errorf("reason %q", r.Reason)
				}
				return
			}
			s, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_ = s.SetDeadline(time.Now().Add(10 * time.Second))
			if c.cancel {
				wantEOF(t, s)
				wantEOF(t, conn)
				if len(w.records)+len(w.learned)+w.opened != 0 {
					t.Errorf("a cancelled relay left records %v, learned %v", w.records, w.learned)
				}
				return
			}
			if c.server {
				write(t, s, "welcome")
				read(t, conn, "welcome")
				write(t, conn, "\x02bye")
				read(t, s, "bye")
			}
			read(t, s, c.want)
			conn.Close()
			wantEOF(t, s)
			s.Close()
			w.record()
			if len(w.learned) != 1 || w.learned[0] != c.learned || w.opened != 1 {
				t.Errorf("learned %v, want %v; opened %d", w.learned, c.learned, w.opened)
			}
		})
	}
}

// TestProgramGone: nobody listens, so the caller sees a reset, never an end.
func TestProgramGone(t *testing.T) {
	w := newWorld(t, relay.Config{})
	addr, ln := w.serveOpen()
	ln.Close()
	conn := w.dial(addr)
	write(t, conn, open(relay.Open{Port: 80}))
	wantReset(t, conn)
	if r := w.record(); r.Reason != failure.ConnectFailed.Label() {
		t.Errorf("reason %q", r.Reason)
	}
}
