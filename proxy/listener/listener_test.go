package listener_test

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

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/relay"
)

// world is two workers on a real loop: one beside the client, one beside the program, with a plain connection
// instead of TLS between them. Clients and programs are real sockets.
type world struct {
	t        *testing.T
	loop     *loop.Epoll
	relays   *relay.Relays
	worker   *listener.Worker
	mesh     *listener.Mesh
	program  net.Listener
	learning listener.Learning

	vip  netip.AddrPort
	port *port
	slow bool // the directory has to ask

	counters *observe.Recorder

	mu       sync.Mutex
	records  []record.Record
	refused  []failure.Reason
	contexts []listener.Context
	spares   int // blanks given back
	blanks   int // blanks made
	sni      string
}

type port struct {
	name     model.PortName
	protocol model.Protocol
	cluster  *cluster.Cluster
	relays   []model.RelayRoute
	others   map[model.PortName]*cluster.Cluster // besides its own
}

func (p *port) Name() model.PortName       { return p.name }
func (p *port) Protocol() model.Protocol   { return p.protocol }
func (p *port) Relays() []model.RelayRoute { return p.relays }
func (p *port) Cluster(name model.PortName) *cluster.Cluster {
	if c := p.others[name]; c != nil {
		return c
	}
	return p.cluster
}

var peer = spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "web"}

func newWorld(t *testing.T) *world { return buildWorld(t, nil) }

// buildWorld makes a world; change may replace parts before anything runs.
func buildWorld(t *testing.T, change func(w *world, cfg *listener.Config)) *world {
	l, err := loop.New(loop.Config{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, loop: l, counters: observe.New(observe.Config{}).Recorder(), vip: netip.MustParseAddrPort("198.18.0.7:3306"), sni: listener.ServerName(8080, "db-1", "default")}
	w.program = w.listen()
	w.relays = relay.New(relay.Config{Loop: l, Observer: w})
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "db"}, Port: 3306}
	w.port = &port{name: name, cluster: cluster.New(&model.Cluster{Name: name, ConnectTimeout: time.Second})}
	cfg := listener.Config{
		Loop: l, Observer: w, Directory: w, Blanks: w, HTTP: w, Relays: w.relays,
		Self: model.ServiceName{Namespace: "default", Name: "web"}, SelfID: peer.String(),
		Ports: func(p uint16) (listener.OwnPort, bool) {
			return listener.OwnPort{Port: p, Service: name, Protocol: w.port.protocol}, p == 8080
		},
		Program: func(p uint16, _ netip.Addr) (loop.Dial, bool) {
			return loop.Dial{Address: addrPort(w.program.Addr().String())}, p == 8080
		},
		Learn:       w.learning.Saw,
		Passthrough: listener.Passthrough{VIPs: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")}},
	}
	w.mesh = &listener.Mesh{Workload: "db-1", Namespace: "default",
		Handshake: func(raw loop.Conn, h loop.Handler) listener.Secure {
			raw.SetHandler(h)
			return secure{raw, w.sni}
		}}
	if change != nil {
		change(w, &cfg)
	}
	w.worker = listener.New(cfg)
	w.mesh.Workers = []*listener.Worker{w.worker}
	w.endpoints(w.accept(w.mesh.Accept))
	go l.Run()
	t.Cleanup(l.Close)
	return w
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// endpoints puts the cluster's endpoints in force.
func (w *world) endpoints(addrs ...string) {
	e := &model.Endpoints{Cluster: w.port.name}
	for i, a := range addrs {
		e.Endpoints = append(e.Endpoints, model.Endpoint{Workload: "db-" + string(rune('1'+i)), Namespace: "default",
			Address: addrPort(a), Port: 8080, Identity: "spiffe://tulle.local/ns/default/sa/db", Weight: 1})
	}
	w.port.cluster.SetEndpoints(e)
}

// secure plays a TLS connection.
type secure struct {
	loop.Conn
	sni string
}

func (s secure) PeerID() spiffe.ID  { return peer }
func (s secure) ServerName() string { return s.sni }

// world is the directory.

func (w *world) Port(a netip.AddrPort) (listener.Port, bool) {
	if a == w.vip && !w.slow {
		return w.port, true
	}
	return nil, false
}

func (w *world) ByAddress(on loop.Loop, a netip.AddrPort, then func(listener.Port, failure.Reason)) {
	t := &loop.Timer{}
	t.Expired = func() {
		if a == w.vip {
			then(w.port, failure.None)
		} else {
			then(nil, failure.UnknownService)
		}
	}
	on.Arm(t, 10*time.Millisecond)
}

// world makes blanks: connections that stand.

type blank struct {
	c     loop.Conn
	ready func(loop.Conn, *failure.Failure)
}

func (b *blank) Opened() {
	r := b.ready
	b.ready = nil
	if r != nil {
		r(b.c, nil)
	}
}
func (b *blank) Data([]byte) int { return 0 }
func (b *blank) EOF()            {}
func (b *blank) Writable()       {}
func (b *blank) Closed(err error) {
	if b.ready != nil {
		b.ready(nil, &failure.Failure{Reason: failure.ConnectFailed, Cause: err})
	}
}

func (w *world) Blank(t *pool.Target, timeout time.Duration, ready func(loop.Conn, *failure.Failure)) func() {
	b := &blank{ready: ready}
	b.c = w.loop.Dial(loop.Dial{Address: t.Address, Timeout: timeout}, b)
	w.count(&w.blanks)
	return func() {
		if b.ready != nil {
			w.count(&w.spares)
		}
		b.ready = nil
	}
}

func (w *world) Return(t *pool.Target, c loop.Conn) {
	c.SetHandler(&blank{})
	w.count(&w.spares)
}

func (w *world) count(n *int) {
	w.mu.Lock()
	*n++
	w.mu.Unlock()
}

// world observes.

func (w *world) Opened(r *record.Record, f *observe.Flow) { w.counters.Opened(r, f) }
func (w *world) Closed(r *record.Record, _ *observe.Flow) { w.Done(r) }
func (w *world) Done(r *record.Record) {
	w.mu.Lock()
	w.records = append(w.records, *r)
	w.mu.Unlock()
}
func (w *world) Refused(why failure.Reason) {
	w.mu.Lock()
	w.refused = append(w.refused, why)
	w.mu.Unlock()
}

// world is the HTTP server: it answers everything it has got when that ends with an empty line.

type web struct {
	c   loop.Conn
	got []byte
}

func (w *world) Serve(c loop.Conn, ctx listener.Context) loop.Handler {
	w.mu.Lock()
	w.contexts = append(w.contexts, ctx)
	w.mu.Unlock()
	return &web{c: c}
}

func (h *web) Opened() {}
func (h *web) Data(p []byte) int {
	h.got = append(h.got, p...)
	if bytes.HasSuffix(h.got, []byte("\r\n\r\n")) {
		h.c.Write(append([]byte("HTTP got "), h.got...))
		h.c.Close()
	}
	return len(p)
}
func (h *web) EOF()         {}
func (h *web) Writable()    {}
func (h *web) Closed(error) {}

// context waits for the first connection that HTTP was given.
func (w *world) context() listener.Context {
	w.t.Helper()
	w.until("a connection for HTTP", func() bool { return len(w.contexts) > 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.contexts[0]
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

// do runs f on the loop.
func (w *world) do(f func()) {
	done := make(chan struct{})
	w.loop.Post(func() { f(); close(done) })
	<-done
}

func (w *world) listen() net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { ln.Close() })
	return ln
}

// accept listens on the loop and answers the address.
func (w *world) accept(serve func(loop.Incoming)) string {
	ln := w.listen()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		w.t.Fatal(err)
	}
	ll, err := w.loop.Listen(int(file.Fd()), serve)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { ll.Close(); file.Close() })
	return ln.Addr().String()
}

// turned is a connection that capture turned to us.
type turned struct {
	loop.Incoming
	wanted netip.AddrPort
}

func (t turned) Wanted() netip.AddrPort { return t.wanted }

// captured answers where connections are accepted as captured ones to wanted.
func (w *world) captured(wanted netip.AddrPort) string {
	return w.accept(func(in loop.Incoming) { w.worker.Outbound(turned{in, wanted}) })
}

// outbound is a client whose connection to wanted is captured.
func (w *world) outbound(wanted netip.AddrPort) *net.TCPConn {
	w.t.Helper()
	return w.dial(w.captured(wanted))
}

// dialReset is a client that is reset, perhaps before its connect has returned.
func (w *world) dialReset(addr string) {
	w.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		w.t.Fatalf("%v, want a reset", err)
	}
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

// arrives waits for a connection to the program.
func (w *world) arrives() *net.TCPConn {
	w.t.Helper()
	_ = w.program.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second))
	c, err := w.program.Accept()
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
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got[:n], err, want)
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

// TestSession runs what passes between two proxies over plain connections, and over TLS from a real pool.
func TestSession(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T, func(*testing.T) *world)
	}{
		{"ServerFirst", testServerFirst},
		{"ClientFirst", testClientFirst},
		{"HTTP", testHTTP},
		{"HTTPLate", testHTTPLate},
		{"Silence", testSilence},
		{"NobodyThere", testNobodyThere},
		{"ProgramNotThere", testProgramNotThere},
		{"Failover", testFailover},
		{"NextEndpoint", testNextEndpoint},
		{"Close", testClose},
	} {
		t.Run(c.name+"/plain", func(t *testing.T) { c.test(t, newWorld) })
		t.Run(c.name+"/mtls", func(t *testing.T) { c.test(t, secureWorld) })
	}
}

const get = "GET / HTTP/1.1\r\nHost: db\r\n\r\n"

func testServerFirst(t *testing.T, fresh func(*testing.T) *world) {
	for _, known := range []model.Protocol{model.ProtocolUnknown, model.ProtocolTCP, model.LearnedServerFirst} {
		w := fresh(t)
		w.port.protocol = known
		c := w.outbound(w.vip)
		s := w.arrives()
		write(t, s, "5.7 welcome")
		read(t, c, "5.7 welcome")
		write(t, c, "login")
		read(t, s, "login")
		_ = c.CloseWrite()
		wantEOF(t, s)
		write(t, s, "bye")
		s.Close()
		read(t, c, "bye")
		wantEOF(t, c)
		w.until("two records", func() bool { return len(w.records) == 2 })
		if p := w.learning.Learned(8080); p != model.LearnedServerFirst {
			t.Errorf("%v: learned %v", known, p)
		}
		for _, r := range w.records {
			if r.RequestBytes != 5 || r.ResponseBytes != 14 || r.Reason != "" || r.Destination.Name != "db" || r.Source.Name != "web" || !r.MTLS {
				t.Errorf("%v: record %+v", known, r)
			}
		}
	}
}

func testClientFirst(t *testing.T, fresh func(*testing.T) *world) {
	for _, first := range []string{"*1\r\n", "GET", "\x16\x03\x01\x00\x00\x01"} { // opaque, HTTP that never comes, TLS
		w := fresh(t)
		c := w.outbound(w.vip)
		write(t, c, first)
		s := w.arrives()
		read(t, s, first)
		write(t, s, "+PONG")
		read(t, c, "+PONG")
		if p := w.learning.Learned(8080); p != model.LearnedClientFirst {
			t.Errorf("%q: learned %v", first, p)
		}
	}
}

func testHTTP(t *testing.T, fresh func(*testing.T) *world) {
	for _, c := range []struct {
		name  string
		known model.Protocol
		slow  bool
	}{{"unknown", 0, false}, {"declared", model.ProtocolHTTP, false}, {"learned", model.LearnedHTTP, false}, {"asked for", 0, true}} {
		w := fresh(t)
		w.port.protocol, w.slow = c.known, c.slow
		conn := w.outbound(w.vip)
		write(t, conn, get)
		read(t, conn, "HTTP got "+get)
		wantEOF(t, conn)
		if x := w.context(); x.Port != listener.Port(w.port) || x.Direction != record.Outbound || x.HTTP2 || x.Wanted != w.vip || !x.Protocol.HTTP() {
			t.Errorf("%s: context %+v", c.name, x)
		}
		if len(w.records) != 0 || c.known.HTTP() && w.blanks != 0 {
			t.Errorf("%s: records %v, %d blanks made", c.name, w.records, w.blanks)
		}
	}
}

// testHTTPLate: the client is silent until the program has been connected to; the program sees a connection
// that ends without a byte.
func testHTTPLate(t *testing.T, fresh func(*testing.T) *world) {
	w := fresh(t)
	c := w.outbound(w.vip)
	s := w.arrives()
	for i := range len(get) {
		write(t, c, get[i:i+1])
	}
	read(t, c, "HTTP got "+get)
	wantEOF(t, s)
	if p := w.learning.Learned(8080); p != model.ProtocolUnknown || len(w.records) != 0 {
		t.Errorf("learned %v, records %v", p, w.records)
	}
}

// testSilence: nobody says anything. Nothing is learned.
func testSilence(t *testing.T, fresh func(*testing.T) *world) {
	w := fresh(t)
	c := w.outbound(w.vip)
	s := w.arrives()
	c.Close()
	wantEOF(t, s)
	if p := w.learning.Learned(8080); p != model.ProtocolUnknown {
		t.Errorf("learned %v", p)
	}
}

func testNobodyThere(t *testing.T, fresh func(*testing.T) *world) {
	for _, known := range []model.Protocol{model.ProtocolUnknown, model.ProtocolTCP} {
		w := fresh(t)
		w.port.protocol = known
		dead := w.listen()
		dead.Close()
		w.endpoints(dead.Addr().String())
		w.dialReset(w.captured(w.vip))
		w.endpoints()
		w.dialReset(w.captured(w.vip))
		w.until("two records", func() bool { return len(w.records) == 2 })
		for i, want := range []failure.Reason{failure.ConnectFailed, failure.NoEndpoint} {
			if w.records[i].Reason != want.Label() {
				t.Errorf("reason %q, want %q", w.records[i].Reason, want.Label())
			}
		}
		if w.records[0].NAttempts != 1 || w.records[0].Attempts[0].Reason != "connect_failed" {
			t.Errorf("attempts %+v", w.records[0].Attempts)
		}
	}
}

// testProgramNotThere: the proxy is there, the program is not.
func testProgramNotThere(t *testing.T, fresh func(*testing.T) *world) {
	for _, first := range []string{"", "*1\r\n"} {
		w := fresh(t)
		w.program.Close()
		if first == "" {
			w.dialReset(w.captured(w.vip))
			continue
		}
		w.port.protocol = model.LearnedHTTP // no connection is made before the client speaks
		c := w.outbound(w.vip)
		write(t, c, first)
		wantReset(t, c)
	}
}

func testFailover(t *testing.T, fresh func(*testing.T) *world) {
	w := fresh(t)
	dead := w.listen()
	dead.Close()
	alive := w.port.cluster.Endpoints()[0].Address().String()
	w.endpoints(dead.Addr().String(), alive, dead.Addr().String())
	for range 10 {
		c := w.outbound(w.vip)
		s := w.arrives()
		write(t, s, "hello")
		read(t, c, "hello")
		c.Close()
		s.Close()
	}
}

// testNextEndpoint: the first proxy's program is not there; its proxy says so by a reset, and another serves.
func testNextEndpoint(t *testing.T, fresh func(*testing.T) *world) {
	w := fresh(t)
	alive := w.port.cluster.Endpoints()[0].Address().String()
	resetting := w.accept(func(in loop.Incoming) {
		in.Adopt(w.loop, func(c loop.Conn) loop.Handler {
			h := &resetter{}
			h.c = w.mesh.Handshake(c, h)
			return nil
		})
	})
	w.endpoints(resetting, alive)
	for range 10 {
		c := w.outbound(w.vip)
		s := w.arrives()
		write(t, s, "hello")
		read(t, c, "hello")
		c.Close()
		s.Close()
	}
}

// resetter resets a mesh connection as soon as it is opened.
type resetter struct{ c loop.Conn }

func (r *resetter) Opened()           {}
func (r *resetter) Data(p []byte) int { r.c.Reset(); return len(p) }
func (r *resetter) EOF()              {}
func (r *resetter) Writable()         {}
func (r *resetter) Closed(error)      {}

func TestUnknownService(t *testing.T) {
	w := newWorld(t)
	w.dialReset(w.captured(netip.MustParseAddrPort("198.18.9.9:80")))
	w.until("a record", func() bool { return len(w.records) == 1 })
	if w.records[0].Reason != failure.UnknownService.Label() {
		t.Errorf("reason %q", w.records[0].Reason)
	}
}

func TestPassthroughRefused(t *testing.T) {
	own := netip.MustParseAddrPort("192.0.2.1:7070")
	p := listener.Passthrough{
		VIPs:    []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")},
		Own:     func(a netip.AddrPort) bool { return a == own },
		Capture: []uint16{15001}, Machine: func(a netip.Addr) bool { return a == own.Addr() },
	}
	for to, want := range map[string]failure.Reason{
		"192.0.2.1:80": failure.None, "192.0.2.1:7070": failure.OwnPort, "[::ffff:192.0.2.1]:7070": failure.OwnPort,
		"192.0.2.1:15001": failure.OwnPort, "192.0.2.2:15001": failure.None, "127.0.0.1:80": failure.OwnPort,
		"[::1]:80": failure.OwnPort, "0.0.0.0:80": failure.OwnPort, "[::]:80": failure.OwnPort, "224.0.0.1:80": failure.OwnPort,
		"198.19.0.1:80": failure.UnknownService, "169.254.169.254:80": failure.LinkLocal, "[fe80::1%eth0]:80": failure.LinkLocal,
		"[2001:db8::1]:443": failure.None, "192.0.2.9:0": failure.OwnPort,
	} {
		if got := p.Refuse(netip.MustParseAddrPort(to)); got != want {
			t.Errorf("%s: %v, want %v", to, got.Label(), want.Label())
		}
	}
	w := newWorld(t)
	w.dialReset(w.captured(netip.MustParseAddrPort("169.254.169.254:80")))
	w.until("a refusal", func() bool { return len(w.refused) == 1 && w.refused[0] == failure.LinkLocal })
}

// TestPassthrough uses 127.0.0.1 through Dial, because a loopback address itself is refused.
func TestPassthrough(t *testing.T) {
	w := newWorld(t)
	outside := netip.MustParseAddrPort("192.0.2.1:80")
	worker := listener.New(listener.Config{
		Loop: w.loop, Observer: w, Directory: w, Blanks: w, HTTP: w, Relays: w.relays,
		Passthrough: listener.Passthrough{Dial: func(d *loop.Dial) {
			if d.Address == outside {
				d.Address = addrPort(w.program.Addr().String())
			}
		}},
	})
	c := w.dial(w.accept(func(in loop.Incoming) { worker.Outbound(turned{in, outside}) }))
	write(t, c, get)
	s := w.arrives()
	read(t, s, get)
	s.Close()
	wantEOF(t, c)
	c.Close()
	w.until("a record", func() bool { return len(w.records) == 1 })
	if r := w.records[0]; !r.Passthrough || r.RequestBytes != int64(len(get)) || r.MTLS || r.Wanted != outside {
		t.Errorf("record %+v", r)
	}
	w.program.Close()
	w.dialReset(w.accept(func(in loop.Incoming) { worker.Outbound(turned{in, outside}) }))
}

func TestForward(t *testing.T) {
	w := newWorld(t)
	c := w.dial(w.accept(w.worker.Forward(addrPort(w.program.Addr().String()))))
	s := w.arrives()
	write(t, s, "hello")
	read(t, c, "hello")
}

func TestPublish(t *testing.T) {
	w := newWorld(t)
	w.port.protocol = model.LearnedHTTP // the program is not connected to before the client speaks
	c := w.dial(w.accept(w.worker.Publish(8080, 0)))
	write(t, c, get)
	read(t, c, "HTTP got "+get)
	if x := w.context(); !x.Publish || x.MTLS || x.Direction != record.Inbound || x.Own.Port != 8080 {
		t.Errorf("context %+v", x)
	}
	w.do(func() { w.port.protocol = model.ProtocolUnknown })
	c = w.dial(w.accept(w.worker.Publish(8080, 0)))
	write(t, w.arrives(), "hello")
	read(t, c, "hello")
	if p := w.learning.Learned(8080); p != model.LearnedServerFirst {
		t.Errorf("learned %v", p)
	}
	w.dialReset(w.accept(w.worker.Publish(8081, 0)))
	w.program.Close()
	w.dialReset(w.accept(w.worker.Publish(8080, 0)))
}

func TestMesh(t *testing.T) {
	w := newWorld(t)
	addr := w.port.cluster.Endpoints()[0].Address().String()
	c := w.dial(addr)
	write(t, c, "PRI * HTTP/2.0\r\n\r\n")
	read(t, c, "HTTP got PRI")
	if x := w.context(); !x.MTLS || !x.HTTP2 || x.Peer.ID != peer.String() || x.Peer.Service.Name != "web" || x.Own.Port != 8080 {
		t.Errorf("context %+v", x)
	}
	c = w.dial(addr)
	write(t, c, "\x00")
	wantReset(t, c)
	for _, sni := range []string{"", "p8081.db-1.default.mesh.tulle", "p8080.db-2.default.mesh.tulle", "p8080.db-1.prod.mesh.tulle"} {
		w.do(func() { w.sni = sni })
		if w.mesh.Known(sni) {
			t.Errorf("%q is known", sni)
		}
		w.dialReset(addr)
	}
}

func TestServerName(t *testing.T) {
	port, workload, ns, ok := listener.ParseServerName(listener.ServerName(8080, "cart-v1-7f3kq", "default"))
	if port != 8080 || workload != "cart-v1-7f3kq" || ns != "default" || !ok {
		t.Error(port, workload, ns, ok)
	}
	for _, s := range []string{"", "p80.a.b", "p80.a.b.c.mesh.tulle", "p0.a.b.mesh.tulle", "p080.a.b.mesh.tulle", "p+8.a.b.mesh.tulle", "p70000.a.b.mesh.tulle", "80.a.b.mesh.tulle", "p80..b.mesh.tulle", "p80.a.mesh.tulle"} {
		if _, _, _, ok := listener.ParseServerName(s); ok {
			t.Errorf("%q is accepted", s)
		}
	}
}

// testClose: what is undecided is reset.
func testClose(t *testing.T, fresh func(*testing.T) *world) {
	w := fresh(t)
	c := w.outbound(w.vip)
	w.arrives()
	w.loop.Post(w.worker.Close)
	wantReset(t, c)
	done := make(chan int)
	w.loop.Post(func() { done <- w.worker.Pending() })
	if n := <-done; n != 0 {
		t.Errorf("%d pending", n)
	}
}

// allowance lets so many connections through, and pays for everything at once.
type allowance struct {
	mesh, outside  int
	spent, metered int
	incoming       model.ServiceName
}

func (a *allowance) Leave(to listener.Port, _ time.Duration) failure.Reason {
	n := &a.outside
	if to != nil {
		n = &a.mesh
	}
	if *n--; *n < 0 {
		return failure.RateLimited
	}
	return failure.None
}
func (a *allowance) Outgoing(loop.Loop, listener.Port) relay.Meter { a.metered++; return a }
func (a *allowance) Incoming(_ loop.Loop, _ uint16, caller model.ServiceName, _ netip.Addr) relay.Meter {
	a.incoming = caller
	return a
}
func (a *allowance) Spend(n int) time.Duration { a.spent += n; return 0 }

// TestTolls: what leaves the program is asked about before it is served, and what is relayed is paid for, on both sides.
func TestTolls(t *testing.T) {
	a := &allowance{mesh: 1, outside: 1}
	outside := addrPort("192.0.2.1:80")
	w := buildWorld(t, func(w *world, cfg *listener.Config) {
		cfg.Tolls = a
		cfg.Passthrough.Dial = func(d *loop.Dial) {
			if d.Address == outside {
				d.Address = addrPort(w.program.Addr().String())
			}
		}
	})
	for i, to := range []netip.AddrPort{outside, w.vip} {
		at := w.accept(func(in loop.Incoming) { w.worker.Outbound(turned{in, to}) })
		c := w.dial(at)
		write(t, c, "question")
		s := w.arrives()
		read(t, s, "question")
		c.Close()
		s.Close()
		w.until("records", func() bool { return len(w.records) == []int{1, 3}[i] })
		w.dialReset(at)
	}
	w.until("the end", func() bool {
		return a.metered == 2 && a.spent == 3*len("question") && a.incoming == model.ServiceName{Namespace: "default", Name: "web"}
	})
}
