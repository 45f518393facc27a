package downstream_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/egress"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/proxy/router"
	"github.com/tulle-mesh/tulle/sim"
	"github.com/tulle-mesh/tulle/sim/simtest"
)

// exits is an exchange.Egress that asks a table, as a proxy's does.
type exits struct {
	t   testing.TB
	now *egress.Table
}

func (e *exits) Paths(to model.PortName) bool { return e.now.Paths(to) }
func (e *exits) Request(called, to model.PortName, a *authz.Attributes, d *record.Decision, _ []byte) failure.Reason {
	why, said := e.now.Request(to, a, called == to)
	if said.Asked {
		*d = policy.Decided(&said.Verdict)
	}
	return why
}

// allow puts in force what the workload may reach: ports of the hosts x (port 80) of these ExternalServices.
func (e *exits) allow(policies map[string][]model.Policy) {
	e.t.Helper()
	m := &model.Egress{Mode: model.EgressRegistry}
	for name, p := range policies {
		m.Services = append(m.Services, model.EgressService{Name: model.External("default", name), Hosts: []string{"x"}, Ports: []uint16{80}, Policies: p})
	}
	table, err := egress.Compile(m, egress.Caller{Namespace: "default", Account: "default/web"})
	if err != nil {
		e.t.Fatal(err)
	}
	e.now = table
}

// leading is a Destination: an ExternalService with one endpoint.
func leading(t testing.TB, name string, at netip.AddrPort) (*services, model.PortName) {
	t.Helper()
	to := model.PortName{Service: model.External("default", name), Port: 80}
	table, err := router.Compile(&model.RouteTable{Name: to, Routes: []model.Route{{Name: "ExternalService/default/" + name, Match: model.Match{Path: "/"}, Backends: []model.Backend{{Cluster: to, Weight: 1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.New(&model.Cluster{Name: to, ConnectTimeout: 2 * time.Second})
	c.SetEndpoints(&model.Endpoints{Cluster: to, Endpoints: []model.Endpoint{{Workload: "x", Address: at, Weight: 1}}})
	return &services{table: table, clusters: map[model.PortName]*cluster.Cluster{to: c}}, to
}

// TestEgressRevokedAmongThousand: of 1,000 open streams of one workload to two ExternalServices (TCP, WebSocket, gRPC) all to the one
// that it may not call any more end within a second of virtual time, and none to the other is touched.
func TestEgressRevokedAmongThousand(t *testing.T) {
	simtest.Each(t, 1, func(t *testing.T, seed uint64) {
		const n = 167
		w := sim.New(sim.Config{Seed: seed})
		far := w.NewLoop(netip.MustParseAddr("10.0.0.1"))
		program := w.Listen(far, netip.MustParseAddrPort("10.0.0.1:80"), func(in loop.Incoming) {
			in.Adopt(far, func(c loop.Conn) loop.Handler { return &stayer{c: c} })
		}).Addr()
		l, may := w.NewLoop(netip.MustParseAddr("10.0.0.2")), &exits{t: t}
		may.allow(map[string][]model.Policy{"bank": nil, "shop": nil})
		var log records
		log.keep = true
		worker := exchange.NewWorker(exchange.Config{Loop: l, Observer: &log, Seed: 1, Pool: pool.New(pool.Config{Loop: l}), Egress: may})
		relays := relay.New(relay.Config{Loop: l, Observer: observe.New(observe.Config{}).Recorder()})
		guests := map[string][]*guest{}
		cl := w.NewLoop(netip.MustParseAddr("10.0.1.1"))
		for _, name := range []string{"bank", "shop"} {
			dest, called := leading(t, name, program)
			o := exchange.Origin{Direction: record.Outbound, Destination: dest, Service: called}
			web := w.Listen(l, netip.MustParseAddrPort("10.0.0.2:0"), func(in loop.Incoming) {
				in.Adopt(l, func(c loop.Conn) loop.Handler {
					return downstream.Serve(c, downstream.Context{Worker: worker, Origin: &o})
				})
			}).Addr()
			tcp := w.Listen(l, netip.MustParseAddrPort("10.0.0.2:0"), func(in loop.Incoming) {
				in.Adopt(l, func(c loop.Conn) loop.Handler {
					d := &departing{relays: relays, down: c, again: func(*record.Decision) failure.Reason {
						why, _ := may.now.Connection(called, "", false, true, 0)
						return why
					}}
					d.up = l.Dial(loop.Dial{Address: program}, d)
					c.Pause()
					return unread{}
				})
			}).Addr()
			for j := range 3 * n {
				g := &guest{kind: []string{"tcp", "websocket", "grpc"}[j%3]}
				guests[name] = append(guests[name], g)
				at := web
				if g.kind == "tcp" {
					at = tcp
				}
				cl.Post(func() { g.c = cl.Dial(loop.Dial{Address: at}, g) })
			}
		}
		count := func(name string, is func(g *guest) bool) (n int) {
			for _, g := range guests[name] {
				if is(g) {
					n++
				}
			}
			return n
		}
		if !w.Until(time.Minute, func() bool { return count("bank", (*guest).up)+count("shop", (*guest).up) == 6*n }) {
			t.Fatalf("%d and %d are up", count("bank", (*guest).up), count("shop", (*guest).up))
		}
		may.allow(map[string][]model.Policy{"bank": {only(model.ActionDeny, "no", rule("web"))}, "shop": {only(model.ActionAllow, "yes", rule("web"))}})
		l.Post(func() {
			worker.Review(nil)
			relays.Review()
		})
		over := func(g *guest) bool { return g.ended || bytes.Contains(g.got, []byte("grpc-status: 7")) }
		if !w.Until(time.Second, func() bool { return count("bank", over) == 3*n }) {
			t.Fatalf("%d of %d have ended within a second", count("bank", over), 3*n)
		}
		for _, g := range guests["shop"] {
			if g.kind != "grpc" {
				g.c.Write([]byte("still here"))
			}
		}
		w.Run(2 * time.Second)
		if n := count("shop", over); n != 0 {
			t.Errorf("%d streams to the other service have ended", n)
		}
		if got := count("shop", func(g *guest) bool { return bytes.HasSuffix(g.got, []byte("still here")) }); got != 2*n {
			t.Errorf("%d of %d streams to the other service go on", got, 2*n)
		}
		denied := 0
		for _, r := range log.all {
			if r.Reason == "egress_denied" {
				denied++
			}
		}
		if denied != 2*n || relays.Len() != n || worker.Open() != 2*n {
			t.Errorf("%d recorded as denied, %d relays and %d exchanges are open", denied, relays.Len(), worker.Open())
		}
	})
}

// departing is a relayed connection to the outside until the far side stands.
type departing struct {
	relays   *relay.Relays
	down, up loop.Conn
	again    func(*record.Decision) failure.Reason
}

func (d *departing) Opened() {
	rec := &record.Record{}
	rec.Reset()
	d.relays.Start(d.down, d.up, rec, relay.Options{Again: d.again})
}
func (d *departing) Data([]byte) int { return 0 }
func (d *departing) EOF()            {}
func (d *departing) Writable()       {}
func (d *departing) Closed(error)    {}

// TestEgressPath: where a policy about an ExternalService looks at requests, their paths are made one spelling, judged and sent on
// so; what can be read in two ways is refused. Query parameters and cookies are looked at too.
func TestEgressPath(t *testing.T) {
	program := addrOf(t, serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RequestURI) }))
	dest, called := leading(t, "bank", program)
	may := &exits{t: t}
	no := only(model.ActionDeny, "no", model.PolicyRule{Name: "admin", To: []model.PolicyTarget{{Paths: []model.PolicyPath{{Match: model.StringMatch{Kind: model.StringPrefix, Value: "/admin"}}}}}},
		model.PolicyRule{Name: "debug", When: []model.PolicyCondition{{Kind: model.ConditionQuery, Name: "debug"}}},
		model.PolicyRule{Name: "cookie", When: []model.PolicyCondition{{Kind: model.ConditionCookie, Name: "who", Values: exactly("eve")}}})
	p := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: dest, Service: called}, worker: exchange.Config{Egress: may}})
	for _, policed := range []bool{false, true} {
		may.allow(map[string][]model.Policy{"bank": nil})
		if policed {
			may.allow(map[string][]model.Policy{"bank": {no}})
		}
		for _, c := range []struct{ target, fields, plain, judged string }{
			{"/ok", "", "200 /ok", "200 /ok"},
			{"/a/../b//c%41", "", "200 /a/../b//c%41", "200 /b/cA"},
			{"/x/../admin", "", "200 /x/../admin", "403"},
			{"/%61dmin/x", "", "200 /%61dmin/x", "403"},
			{"/x%2fadmin", "", "200 /x%2fadmin", "400"},
			{"/a?d%65bug=1", "", "200 /a?d%65bug=1", "403"},
			{"/a", "Cookie: a=b; who=eve\r\n", "200 /a", "403"},
			{"/a", "Host: y\r\n", "403", "403"},
		} {
			want, host := c.plain, "Host: x\r\n"
			if policed {
				want = c.judged
			}
			if c.fields == "Host: y\r\n" {
				host = ""
			}
			got := answered(t, p.addr, "GET "+c.target+" HTTP/1.1\r\n"+host+c.fields+"Connection: close\r\n\r\n")
			if got != want {
				t.Errorf("policed %v, %s %s: %q, want %q", policed, c.target, c.fields, got, want)
			}
		}
	}
}

// answered is the status of a response, and its body if that is 200.
func answered(t testing.TB, addr, head string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Sprint(res.StatusCode)
	}
	return "200 " + string(body)
}
