package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/xds/client"
	"github.com/tulle-mesh/tulle/xds/resource"
	"github.com/tulle-mesh/tulle/xds/server"
	"github.com/tulle-mesh/tulle/xds/xdstest"
)

var (
	cartID = spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "cart"}
	port   = model.PortName{Service: model.ServiceName{Namespace: "default", Name: "reviews"}, Port: 9080}
)

// log is a Sink that writes down what it is told, and lets a test wait for it.
type log struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newLog() *log { return &log{more: make(chan struct{}, 1)} }

func (l *log) add(format string, args ...any) {
	l.mu.Lock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

func (l *log) Service(n string, s *model.Service) {
	if s == nil {
		l.add("service %s none", n)
		return
	}
	l.add("service %s %s", n, s.VIP4)
}
func (l *log) RouteTable(n string, t *model.RouteTable) {
	if t == nil {
		l.add("routes %s none", n)
		return
	}
	l.add("routes %s %d", n, len(t.Routes))
}
func (l *log) Cluster(n string, c *model.Cluster)     { l.add("cluster %s %v", n, c != nil) }
func (l *log) Endpoints(n string, e *model.Endpoints) { l.add("endpoints %s %v", n, e != nil) }
func (l *log) Security(n string, s *model.Security) error {
	l.add("security %s %v", n, s != nil)
	return nil
}
func (l *log) Trust(n string, m *model.Trust) error {
	if m != nil && len(m.Bundles) > 0 && string(m.Bundles[0].Roots[0]) == noRoot {
		return errors.New("a root that cannot be parsed")
	}
	l.add("trust %s %v", n, m != nil)
	return nil
}
func (l *log) Connected(up bool) { l.add("connected %v", up) }

// noRoot is what the log takes for no root.
const noRoot = "no root"

// next waits until line has been told, and forgets everything up to it.
func (l *log) next(t *testing.T, line string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		l.mu.Lock()
		if i := slices.Index(l.lines, line); i >= 0 {
			l.lines = l.lines[i+1:]
			l.mu.Unlock()
			return
		}
		lines := slices.Clone(l.lines)
		l.mu.Unlock()
		select {
		case <-l.more:
		case <-deadline:
			t.Fatalf("never told %q, but %q", line, lines)
		}
	}
}

func start(t *testing.T, s *xdstest.Server) (*client.Client, *log) {
	t.Helper()
	c, err := client.New(client.Config{
		Address: s.Address, Identity: s.Authority.Issue(cartID), Server: xdstest.ID, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
		Workload: client.Workload{Name: "cart-1", Namespace: "default", Service: "cart", Ports: []client.Port{{Port: 80, Target: 8080}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	l := newLog()
	c.Start(l)
	t.Cleanup(c.Close)
	return c, l
}

func service(vip string) *model.Service {
	return &model.Service{Name: port.Service, VIP4: netip.MustParseAddr(vip), Ports: []model.ServicePort{{Port: 9080}}}
}

func TestSubscribeChangeRemoveReconnect(t *testing.T) {
	s := xdstest.New(t, nil)
	s.SetService("reviews.default", service("198.18.0.1"))
	c, l := start(t, s)
	l.next(t, "connected true")
	c.Subscribe(client.KindService, "reviews.default")
	l.next(t, "service reviews.default 198.18.0.1")
	c.Subscribe(client.KindService, "nobody.default")
	l.next(t, "service nobody.default none")
	s.SetService("reviews.default", service("198.18.0.2"))
	l.next(t, "service reviews.default 198.18.0.2")
	c.Subscribe(client.KindCluster, port.String())
	l.next(t, "cluster reviews.default:9080 false")

	s.Stop()
	l.next(t, "connected false")
	s.SetCluster(port.String(), &model.Cluster{Name: port, ConnectTimeout: time.Second})
	c.Subscribe(client.KindEndpoints, port.String()) // while away
	s.SetEndpoints(port.String(), &model.Endpoints{Cluster: port})
	s.Start()
	want := []string{"connected true", "cluster reviews.default:9080 true", "endpoints reviews.default:9080 true"}
	until(t, func() bool { // in whatever order: they come over two streams
		l.mu.Lock()
		defer l.mu.Unlock()
		return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(l.lines, w) })
	})
	l.mu.Lock()
	if slices.Contains(l.lines, "service reviews.default 198.18.0.2") {
		t.Error("what had not changed was sent again after the reconnection")
	}
	l.mu.Unlock()
	s.SetService("reviews.default", nil)
	l.next(t, "service reviews.default none")
	if st := c.State(); !st.Connected || st.Revision == 0 {
		t.Errorf("state %+v", st)
	}
}

func TestRefusedKeepsTheOneBefore(t *testing.T) {
	s := xdstest.New(t, nil)
	c, l := start(t, s)
	s.SetRouteTable(port.String(), &model.RouteTable{Name: port, Routes: []model.Route{{Match: model.Match{Path: "/"}}}})
	c.Subscribe(client.KindRouteTable, port.String())
	l.next(t, "routes reviews.default:9080 1")
	s.SetRaw(resource.TypeRouteTable, port.String(), &routev3.RouteConfiguration{Name: port.String(), InternalOnlyHeaders: []string{"x"}})
	until(t, func() bool {
		_, refused := s.Streams()[0].Standing()
		return refused[resource.TypeRouteTable+" "+port.String()] == "internal_only_headers: is not run by Tulle (docs/reference/xds.md)"
	})
	s.SetRouteTable(port.String(), &model.RouteTable{Name: port})
	l.next(t, "routes reviews.default:9080 0")
	until(t, func() bool {
		settled, refused := s.Streams()[0].Standing()
		return settled && refused == nil
	})
}

func until(t *testing.T, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) { // poll
		if time.Now().After(end) {
			t.Fatal("it never came to hold")
		}
	}
}

// lines is where a logger writes.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

// An outage is said once, however often a connection is tried, and so is its end.
func TestOutageIsSaidOnce(t *testing.T) {
	s := xdstest.New(t, nil)
	said := &lines{}
	var dials atomic.Int32
	c, err := client.New(client.Config{Address: s.Address, Identity: s.Authority.Issue(cartID), Server: xdstest.ID,
		MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond, Log: slog.New(slog.NewTextHandler(said, nil)),
		Dial: func(ctx context.Context, a string) (net.Conn, error) {
			dials.Add(1)
			return new(net.Dialer).DialContext(ctx, "tcp", a)
		},
		Workload: client.Workload{Name: "cart-1", Namespace: "default", Service: "cart"}})
	if err != nil {
		t.Fatal(err)
	}
	l := newLog()
	c.Start(l)
	defer c.Close()
	l.next(t, "connected true")
	if n := said.count("reachable"); n != 0 {
		t.Errorf("said %d times that there was an outage before the first", n)
	}
	for range 2 {
		s.Stop()
		before := dials.Load()
		until(t, func() bool { return dials.Load() > before+5 })
		s.Start()
		l.next(t, "connected true")
	}
	if a, b := said.count("not reachable"), said.count("reachable again"); a != 2 || b != 2 {
		t.Errorf("two outages were said %d times, their ends %d times:\n%s", a, b, said.text.String())
	}
}

// A control plane with the wrong identity is not listened to.
func TestServerMustProveItself(t *testing.T) {
	s := xdstest.New(t, nil)
	other := xdstest.New(t, nil)
	c, err := client.New(client.Config{Address: other.Address, Identity: s.Authority.Issue(cartID), Server: xdstest.ID, MinBackoff: time.Millisecond,
		Workload: client.Workload{Name: "cart-1", Namespace: "default", Service: "cart"}})
	if err != nil {
		t.Fatal(err)
	}
	c.Start(newLog())
	defer c.Close()
	until(t, func() bool { return c.State().LastError != "" })
	if c.State().Connected {
		t.Error("connected to a stranger")
	}
}

// chief notes what sessions say.
type chief struct {
	*log
	goodbye chan struct{}
}

func (c chief) Begin(p spiffe.ID, h server.Hello) (server.Session, error) {
	c.add("hello %s %s/%s ready=%v %v", p, h.Namespace, h.Workload, h.Ready, h.Ports)
	return c, nil
}
func (c chief) Ready(r bool)                       { c.add("ready %v", r) }
func (c chief) Learned(p uint16, m model.Protocol) { c.add("learned %d %s", p, m) }
func (c chief) Stats(b []byte)                     { c.add("stats %s", b) }
func (c chief) Shown(server.Proof)                 {}
func (c chief) Recovered(list []recovery.Report) {
	for _, r := range list {
		c.add("recovered %s %v %v", r.Cluster, r.Learned.Service.Weight(), r.Last)
	}
}
func (c chief) Decided(r decision.Report) {
	for _, s := range r.Of {
		c.add("decided %+v", s)
	}
	c.add("%d others", r.Others)
}
func (c chief) Captured(x server.Capture)       { c.add("captured %q %v", x.Broken, x.Closed) }
func (c chief) Goodbye(ctx context.Context) int { <-c.goodbye; return 0 }
func (c chief) End(said bool)                   { c.add("end %v", said) }

func TestSession(t *testing.T) {
	ch := chief{newLog(), make(chan struct{})}
	s := xdstest.New(t, ch)
	c, l := start(t, s)
	ch.next(t, "hello spiffe://tulle.local/ns/default/sa/cart default/cart-1 ready=false [{ 80 8080 unknown unknown}]")
	l.next(t, "connected true")
	c.SetReady(true)
	ch.next(t, "ready true")
	c.Learned(8080, model.LearnedHTTP)
	ch.next(t, "learned 8080 learned-http")
	c.Report([]byte("{}"))
	ch.next(t, "stats {}")
	lesson := recovery.Report{Cluster: port.String(), Last: []recovery.Outage{{Ended: time.UnixMilli(1_800_000_000_000), Lasted: time.Second}}}
	lesson.Learned.Service.Add(lesson.Last[0].Ended, time.Second)
	c.Recovered([]recovery.Report{lesson})
	ch.next(t, fmt.Sprintf("recovered reviews.default:9080 1 %v", lesson.Last))
	seen := decision.Seen{Key: decision.Key{Principal: "spiffe://tulle.local/ns/default/sa/a", Port: 80, GRPC: true, Method: "POST", Host: "b", Path: "/c.D/{id}", Folded: true,
		ServerName: "e", Fields: "h:f=g", Verdict: decision.Denied, Policy: "h", Rule: "i", Absent: true}, Count: 2, First: 3, Last: 4, Request: "j", Sample: "/c.D/1"}
	c.Decided(decision.Report{Of: []decision.Seen{seen, {Key: decision.Key{Port: 80, Verdict: "maybe"}, Count: 3}}, Others: 5})
	ch.next(t, fmt.Sprintf("decided %+v", seen))
	ch.next(t, "8 others")             // a verdict that nobody knows is one of them
	c.Captured("", time.Time{}, false) // as it was
	c.Captured("no answer", time.Now(), true)
	ch.next(t, `captured "no answer" true`)

	s.Stop()
	ch.next(t, "end false")
	s.Start()
	ch.next(t, "hello spiffe://tulle.local/ns/default/sa/cart default/cart-1 ready=true [{ 80 8080 unknown learned-http}]")
	l.next(t, "connected true")
	ch.next(t, `captured "no answer" true`)
	c.Captured("", time.Time{}, false)
	ch.next(t, `captured "" false`)

	done := make(chan error)
	go func() { done <- c.Withdraw(t.Context()) }()
	select {
	case err := <-done:
		t.Fatalf("withdrawn before the callers knew: %v", err)
	case ch.goodbye <- struct{}{}:
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.Close()
	ch.next(t, "end true")
}

// strict lets nobody in.
type strict struct{ chief }

func (strict) Begin(spiffe.ID, server.Hello) (server.Session, error) {
	return nil, errors.New("more than 64 ports")
}

// Who is refused is told that, and not that nobody was there.
func TestRefusalIsSaid(t *testing.T) {
	s := xdstest.New(t, strict{})
	said := &lines{}
	c, err := client.New(client.Config{Address: s.Address, Identity: s.Authority.Issue(cartID), Server: xdstest.ID, MinBackoff: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(said, nil)), Workload: client.Workload{Name: "cart-1", Namespace: "default", Service: "cart"}})
	if err != nil {
		t.Fatal(err)
	}
	c.Start(newLog())
	defer c.Close()
	until(t, func() bool { return said.count("refuses this workload") > 0 })
	if said.count("more than 64 ports") != 1 || said.count("not reachable") != 0 {
		t.Error(said.text.String())
	}
}

// Whose certificate was revoked is told so, tells his identity, and comes back with another one.
func TestRevokedCertificate(t *testing.T) {
	s := xdstest.New(t, nil)
	said := &lines{}
	first := s.Authority.Issue(cartID).SVID
	id := svid.Resume(first, svid.Config{Fetch: func(context.Context, *svid.SVID) (*svid.SVID, error) { return s.Authority.Issue(cartID).SVID, nil }})
	defer id.Close()
	c, err := client.New(client.Config{Address: s.Address, Identity: id, Server: xdstest.ID, MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(said, nil)), Workload: client.Workload{Name: "cart-1", Namespace: "default", Service: "cart"}})
	if err != nil {
		t.Fatal(err)
	}
	l := newLog()
	c.Start(l)
	defer c.Close()
	l.next(t, "connected true")
	shown := id.Current() // it may have been renewed: half of its life is over
	s.Stop()
	s.Revoke(shown.Certificate.Leaf)
	s.Start()
	l.next(t, "connected true")
	if id.Current().Certificate.Leaf == shown.Certificate.Leaf {
		t.Error("with the certificate of before")
	}
	if said.count("refuses this workload's certificate") != 1 || said.count("is revoked") != 1 {
		t.Error(said.text.String())
	}
}

// A retired client says nothing of the workload any more and does not come back; what it has subscribed stays meanwhile.
func TestRetire(t *testing.T) {
	s := xdstest.New(t, nil)
	c, l := start(t, s)
	l.next(t, "connected true")
	c.Subscribe(client.KindService, "reviews.default")
	l.next(t, "service reviews.default none")
	c.Retire()
	s.SetService("reviews.default", service("198.18.0.1"))
	l.next(t, "service reviews.default 198.18.0.1")
	if err := c.Withdraw(t.Context()); err != nil {
		t.Error(err)
	}
	c.Report([]byte("[]"))
	until(t, c.Reported)
	s.Stop()
	l.next(t, "connected false")
	s.Start()
	other, m := start(t, s)
	m.next(t, "connected true") // the server is there, and
	other.Close()
	c.Close() // ends at once: the retired one has ended before
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.lines, "connected true") {
		t.Error("a retired client came back")
	}
}

// TestTrustRefused: roots that the proxy cannot read are not acknowledged, and the control plane hears why.
func TestTrustRefused(t *testing.T) {
	s := xdstest.New(t, nil)
	trust := func(root string) {
		m, err := resource.EncodeTrust(&model.Trust{Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: [][]byte{[]byte(root)}}}})
		if err != nil {
			t.Fatal(err)
		}
		s.SetRaw(resource.TypeTrust, resource.TrustName, m)
	}
	trust("a root")
	c, l := start(t, s)
	c.Subscribe(client.KindTrust, resource.TrustName)
	l.next(t, "trust trust true")
	trust(noRoot)
	until(t, func() bool {
		_, refused := s.Streams()[0].Standing()
		_, holds := s.Streams()[0].Holds(resource.TypeTrust, resource.TrustName)
		return refused[resource.TypeTrust+" "+resource.TrustName] == "a root that cannot be parsed" && !holds
	})
	trust("another root")
	l.next(t, "trust trust true")
}
