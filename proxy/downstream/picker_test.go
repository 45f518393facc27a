package downstream_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/xds/extproc"
	"github.com/tulle-mesh/tulle/xds/extproc/extproctest"
)

// choosy is a pool of programs, each behind a proxy, that an endpoint picker picks from.
type choosy struct {
	*extproctest.Picker
	caller *hop
	dest   *services
	at     []netip.AddrPort // of the proxies
	served []*atomic.Int32
	bodies atomic.Value // of the last request: "length:field:body"
}

// newChoosy starts one of n programs; decide answers the picker's requests, nil: there is no picker.
func newChoosy(t *testing.T, n int, m model.Picker, decide func(p *choosy, h *extproctest.Heard) extproctest.Said) *choosy {
	t.Helper()
	p := &choosy{}
	for i := range n {
		seen := &atomic.Int32{}
		srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			p.bodies.Store(fmt.Sprintf("%d:%s:%s", r.ContentLength, r.Header.Get("x-prefiller"), b))
			seen.Add(1)
			fmt.Fprintf(w, "%d", i)
		})
		p.served = append(p.served, seen)
		p.at = append(p.at, mesh(sidecar(t, addrOf(t, srv))))
	}
	p.Picker = &extproctest.Picker{Decide: func(h *extproctest.Heard) extproctest.Said { return decide(p, h) }}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	p.Register(g)
	if decide == nil {
		_ = l.Close()
	} else {
		go func() { _ = g.Serve(l) }()
	}
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	c := extproc.NewClient(func() grpc.ClientConnInterface { return conn })
	t.Cleanup(func() { c.Close(); _ = conn.Close(); g.Stop() })
	dest := byRoute(t, model.Route{}, p.at...)
	m.Cluster, p.dest = spare, dest
	dest.clusters[cart].Set(&model.Cluster{Name: cart, ConnectTimeout: 2 * time.Second, Picker: &m})
	p.caller = newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: dest, Service: cart}, worker: exchange.Config{Pick: c.Pick}})
	return p
}

func placesOf(list ...netip.AddrPort) string {
	var out []string
	for _, a := range list {
		out = append(out, a.String())
	}
	return strings.Join(out, ",")
}

// TestPick: the endpoint that the picker names gets the request, whatever the balancing would do; the picker has seen the whole request,
// which endpoints there are, and is told who has answered.
func TestPick(t *testing.T) {
	p := newChoosy(t, 3, model.Picker{}, func(p *choosy, h *extproctest.Heard) extproctest.Said {
		n := int(h.Body[len(h.Body)-1] - '0')
		return extproctest.Said{Endpoints: p.at[n].String(), Header: n == 1}
	})
	long := strings.Repeat("x", 100<<10)
	for i, want := range []string{"2", "0", "1", "1", "2"} {
		status, body := do(t, p.caller, "POST", long+want, "x-model", "m", "expect", "100-continue")
		if status != 200 || body != want {
			t.Fatalf("%d: %d %s, want %s", i, status, body, want)
		}
		if got := p.bodies.Load().(string); got != fmt.Sprintf("%d::%s%s", len(long)+1, long, want) {
			t.Errorf("the program got %d bytes: %.40s", len(got), got)
		}
		if r := p.caller.log.last(); r.Attempts[0].Workload != "cart-"+string(rune('a'+int(want[0]-'0'))) || r.NAttempts != 1 {
			t.Errorf("record %+v", r.Attempts[0])
		}
	}
	h := p.Heard()[0]
	if h.Fields[":method"] != "POST" || h.Fields[":path"] != "/" || h.Fields["x-model"] != "m" || h.Fields["x-request-id"] == "" || h.Fields["tulle-http"] != "" || h.Body != long+"2" {
		t.Errorf("heard %v and %d bytes", h.Fields, len(h.Body))
	}
	if strings.Join(h.Subset, ",") != placesOf(p.at...) {
		t.Errorf("heard of %v, there are %v", h.Subset, p.at)
	}
	p.caller.until("the picker knows", func() bool { told, ended := p.Served(); return ended == 5 && len(told) == 5 })
	told, _ := p.Served()
	for i, want := range []int{2, 0, 1, 1, 2} {
		if told[i].Status != "200" || i < 1 && told[i].Endpoint != p.at[want].String() {
			t.Errorf("told %+v", told[i])
		}
	}
	p.caller.until("nothing is held", func() bool { return p.caller.worker.Open() == 0 && p.caller.worker.Lent() == 0 })
}

// TestPickFallbacks: those that the picker names are tried in its order, as far as they are of the pool.
func TestPickFallbacks(t *testing.T) {
	for _, open := range []bool{false, true} {
		p := newChoosy(t, 2, model.Picker{FailOpen: open}, func(p *choosy, h *extproctest.Heard) extproctest.Said {
			return extproctest.Said{Endpoints: placesOf(netip.MustParseAddrPort("192.0.2.1:1"), p.at[1], p.at[0])}
		})
		for range 5 {
			if status, body := do(t, p.caller, "POST", "x"); status != 200 || body != "1" {
				t.Fatalf("%d %s", status, body)
			}
		}
	}
}

// TestPickGoesOn: when the one that the picker names first cannot be reached the next one gets the request, and nobody else.
func TestPickGoesOn(t *testing.T) {
	p := newChoosy(t, 2, model.Picker{}, func(p *choosy, h *extproctest.Heard) extproctest.Said {
		return extproctest.Said{Endpoints: h.Fields["x-to"]}
	})
	gone := nobody(t)
	p.dest.clusters[cart].SetEndpoints(&model.Endpoints{Cluster: cart, Endpoints: []model.Endpoint{
		{Workload: "a", Namespace: "default", Address: p.at[0], Port: 1, Weight: 1, Identity: "spiffe://tulle.local/ns/default/sa/cart"},
		{Workload: "b", Namespace: "default", Address: p.at[1], Port: 2, Weight: 1, Identity: "spiffe://tulle.local/ns/default/sa/cart"},
		{Workload: "c", Namespace: "default", Address: gone, Port: 3, Weight: 1, Identity: "spiffe://tulle.local/ns/default/sa/cart"},
	}})
	own := netip.AddrPortFrom(p.at[1].Addr(), 2) // by its own port, which no other has
	if status, body := do(t, p.caller, "POST", "x", "x-to", placesOf(gone, own)); status != 200 || body != "1" {
		t.Errorf("%d %s", status, body)
	}
	if r := p.caller.log.last(); r.NAttempts != 2 || r.Attempts[0].Reason != "connect_failed" {
		t.Errorf("record %+v", r)
	}
	if status, _ := do(t, p.caller, "POST", "x", "x-to", placesOf(gone)); status != 503 || p.caller.log.last().Reason != "connect_failed" {
		t.Errorf("%d %s", status, p.caller.log.last().Reason)
	}
}

// TestPickFails: without an endpoint of the pool, without an answer in time, without a picker, and for a body that it is not shown, the
// failure mode decides.
func TestPickFails(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	unknown := func(*choosy, *extproctest.Heard) extproctest.Said {
		return extproctest.Said{Endpoints: "192.0.2.1:1,nonsense"}
	}
	none := func(*choosy, *extproctest.Heard) extproctest.Said { return extproctest.Said{} }
	slow := func(*choosy, *extproctest.Heard) extproctest.Said {
		<-release
		return extproctest.Said{}
	}
	for _, x := range []struct {
		name   string
		m      model.Picker
		decide func(*choosy, *extproctest.Heard) extproctest.Said
		body   string
		status int
		reason string
	}{
		{"unknown", model.Picker{}, unknown, "x", 503, "pick_failed"},
		{"nobody", model.Picker{}, none, "x", 503, "pick_failed"},
		{"slow", model.Picker{Timeout: 50 * time.Millisecond}, slow, "x", 503, "pick_failed"},
		{"gone", model.Picker{}, nil, "x", 503, "pick_failed"},
		{"too large", model.Picker{MaxBody: 1000}, unknown, strings.Repeat("x", 200<<10), 413, "pick_too_large"},
	} {
		for _, open := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %v", x.name, open), func(t *testing.T) {
				x.m.FailOpen = open
				p := newChoosy(t, 2, x.m, x.decide)
				want, reason := x.status, x.reason
				if open {
					want, reason = 200, ""
				}
				for _, header := range [][]string{nil, {"expect", "100-continue"}} {
					status, _ := do(t, p.caller, "POST", x.body, header...)
					if r := p.caller.log.last(); status != want || r.Reason != reason {
						t.Errorf("%d %q, want %d %q", status, r.Reason, want, reason)
					}
				}
				p.caller.until("nothing is held", func() bool { return p.caller.worker.Open() == 0 && p.caller.worker.Lent() == 0 })
				if n := p.served[0].Load() + p.served[1].Load(); open != (n == 2) {
					t.Errorf("%d have come", n)
				}
			})
		}
	}
}

// TestPickRefuses: what the picker answers itself goes to the client with its status and text, in both modes.
func TestPickRefuses(t *testing.T) {
	for _, open := range []bool{false, true} {
		p := newChoosy(t, 1, model.Picker{FailOpen: open}, func(*choosy, *extproctest.Heard) extproctest.Said {
			return extproctest.Said{Status: 429, Text: "too many at once"}
		})
		status, body := do(t, p.caller, "POST", "x")
		if r := p.caller.log.last(); status != 429 || body != "too many at once" || r.Reason != "pick_refused" || p.served[0].Load() != 0 {
			t.Errorf("%d %q %+v", status, body, r.Reason)
		}
	}
}

// TestPickRewrites: fields and body that the picker changes are what the endpoint gets.
func TestPickRewrites(t *testing.T) {
	other := "a body that is longer than what was sent"
	p := newChoosy(t, 1, model.Picker{}, func(p *choosy, _ *extproctest.Heard) extproctest.Said {
		return extproctest.Said{Endpoints: p.at[0].String(), Body: &other, Set: map[string]string{"x-prefiller": "10.0.0.9:1"}}
	})
	for range 3 { // on one connection
		if status, _ := do(t, p.caller, "POST", "short", "x-prefiller", "mine"); status != 200 {
			t.Fatal(status)
		}
		if got, want := p.bodies.Load().(string), fmt.Sprintf("%d:10.0.0.9:1:%s", len(other), other); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestPickClientGone: a client that goes away while the picker thinks takes its request with it.
func TestPickClientGone(t *testing.T) {
	asked, release := make(chan struct{}, 1), make(chan struct{})
	p := newChoosy(t, 1, model.Picker{Timeout: time.Hour}, func(p *choosy, _ *extproctest.Heard) extproctest.Said {
		asked <- struct{}{}
		<-release
		return extproctest.Said{Endpoints: p.at[0].String()}
	})
	c, err := net.Dial("tcp", p.caller.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: cart\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-asked
	_ = c.Close()
	p.caller.until("it is over", func() bool { return p.caller.worker.Open() == 0 })
	close(release)
	p.caller.until("the picker's stream too", func() bool { _, ended := p.Served(); return ended == 1 })
	if told, _ := p.Served(); len(told) != 0 || p.served[0].Load() != 0 {
		t.Errorf("told %v", told)
	}
}
