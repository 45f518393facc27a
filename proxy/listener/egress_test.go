package listener_test

import (
	"crypto/tls"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// exits decides as a test wants, and remembers which names were said.
type exits struct {
	at, then listener.Exit
	outside  failure.Reason

	mu    sync.Mutex
	said  []string
	again failure.Reason
	ways  []listener.Way // that were asked again about
}

func (e *exits) Address(netip.AddrPort) listener.Exit { return e.at }
func (e *exits) Named(_ netip.AddrPort, said string) listener.Exit {
	e.hear(said)
	return e.then
}
func (e *exits) Connection(_, _ model.PortName, sni string, _ netip.Addr, _ time.Time, _ *record.Decision) failure.Reason {
	e.hear(sni)
	return e.outside
}
func (e *exits) Again(w *listener.Way, _ time.Time, d *record.Decision) failure.Reason {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ways = append(e.ways, *w)
	if e.again != failure.None {
		d.Refusal.By = "mode"
	}
	return e.again
}
func (e *exits) hear(said string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.said = append(e.said, said)
}

func (e *exits) heard() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.said)
}

// beyond is a world whose program stands at an address outside of the mesh.
func beyond(t *testing.T, e *exits) *world {
	return buildWorld(t, func(w *world, cfg *listener.Config) {
		cfg.Egress = e
		cfg.Named = func(on loop.Loop, _ model.PortName, then func(listener.Port, failure.Reason)) {
			on.Post(func() { then(w.port, failure.None) })
		}
		cfg.Passthrough.Dial = func(d *loop.Dial) { d.Address = addrPort(w.program.Addr().String()) }
	})
}

var farAway = netip.MustParseAddrPort("203.0.113.5:443")

// reason waits for the record of the only connection.
func (w *world) reason() string {
	w.t.Helper()
	w.until("a record", func() bool { return len(w.records) > 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.records[0].Reason
}

func TestEgressDenied(t *testing.T) {
	t.Run("what is no HTTP is reset", func(t *testing.T) {
		w := beyond(t, &exits{at: listener.Exit{Why: failure.EgressDenied}})
		c := w.outbound(farAway)
		write(t, c, "\x00\x01")
		wantReset(t, c)
		if got := w.reason(); got != "egress_denied" {
			t.Errorf("the record says %q", got)
		}
	})
	t.Run("who waits for the server too", func(t *testing.T) {
		wantReset(t, beyond(t, &exits{at: listener.Exit{Why: failure.EgressDenied}}).outbound(farAway))
	})
	t.Run("HTTP is told", func(t *testing.T) {
		w := beyond(t, &exits{at: listener.Exit{Why: failure.EgressDenied}})
		c := w.outbound(farAway)
		write(t, c, "GET / HTTP/1.1\r\nHo")
		write(t, c, "st: x\r\n\r\n")
		if ctx := w.context(); ctx.Refuse != failure.EgressDenied || ctx.Port != nil {
			t.Errorf("HTTP was given %+v", ctx)
		}
	})
}

// TestPeek: what the program says first decides, and reaches the server whole.
func TestPeek(t *testing.T) {
	t.Run("Host", func(t *testing.T) {
		e := &exits{at: listener.Exit{Peek: true}}
		w := beyond(t, e)
		c := w.outbound(farAway)
		write(t, c, "GET / HTTP/1.1\r\nhost: A.example:80\r\n\r\n")
		read(t, w.arrives(), "GET / HTTP/1.1\r\nhost: A.example:80\r\n\r\n")
		if got := e.heard(); !slices.Equal(got, []string{"a.example"}) {
			t.Errorf("said %q", got)
		}
	})
	t.Run("two Hosts say none", func(t *testing.T) {
		e := &exits{at: listener.Exit{Peek: true}, then: listener.Exit{Why: failure.EgressDenied}}
		w := beyond(t, e)
		write(t, w.outbound(farAway), "GET / HTTP/1.1\r\nhost: a.example\r\nHost: b.example\r\n\r\n")
		w.context()
		if got := e.heard(); !slices.Equal(got, []string{""}) {
			t.Errorf("said %q", got)
		}
	})
	t.Run("SNI", func(t *testing.T) {
		e := &exits{at: listener.Exit{Peek: true}, then: listener.Exit{Why: failure.EgressDenied}}
		c := beyond(t, e).outbound(farAway)
		if err := tls.Client(c, &tls.Config{ServerName: "B.example", InsecureSkipVerify: true}).Handshake(); err == nil {
			t.Error("the handshake went through")
		}
		if got := e.heard(); !slices.Equal(got, []string{"b.example"}) {
			t.Errorf("said %q", got)
		}
	})
	t.Run("a server that speaks first", func(t *testing.T) {
		e := &exits{at: listener.Exit{Peek: true}}
		w := beyond(t, e)
		c := w.outbound(farAway)
		s := w.arrives()
		write(t, s, "hello")
		read(t, c, "hello")
		if got := e.heard(); !slices.Equal(got, []string{""}) {
			t.Errorf("said %q", got)
		}
	})
}

// TestExternalService: a connection to one goes to its endpoints in the clear, as no connection of the mesh, if it may.
func TestExternalService(t *testing.T) {
	external := model.PortName{Service: model.External("shop", "pay"), Port: 443}
	world := func(e *exits) *world {
		w := beyond(t, e)
		w.port.name, w.port.protocol = external, model.ProtocolTLS
		w.port.cluster = cluster.New(&model.Cluster{Name: external, ConnectTimeout: time.Second})
		w.port.cluster.SetEndpoints(&model.Endpoints{Cluster: external, Endpoints: []model.Endpoint{{Address: addrPort(w.program.Addr().String()), Weight: 1}}})
		return w
	}
	hello := func(c net.Conn) {
		go tls.Client(c, &tls.Config{ServerName: "pay.example", InsecureSkipVerify: true}).Handshake() // ends with the connection
	}
	e := &exits{at: listener.Exit{Service: external}}
	w := world(e)
	hello(w.outbound(farAway))
	first := make([]byte, 1)
	if _, err := w.arrives().Read(first); err != nil || first[0] != 0x16 {
		t.Errorf("the server got %x, %v", first, err)
	}
	if got := e.heard(); !slices.Equal(got, []string{"pay.example"}) {
		t.Errorf("said %q", got)
	}
	e = &exits{at: listener.Exit{Service: external}, outside: failure.EgressDenied}
	w = world(e)
	c := w.outbound(farAway)
	hello(c)
	if got := w.reason(); got != "egress_denied" {
		t.Errorf("the record says %q", got)
	}
}

// TestEgressAgain: what was let out is asked about again, with how it was let out, and ends if it may not stay.
func TestEgressAgain(t *testing.T) {
	external := model.PortName{Service: model.External("shop", "pay"), Port: 443}
	for name, c := range map[string]struct {
		at, then listener.Exit
		first    string
		want     listener.Way
	}{
		"an address": {at: listener.Exit{Names: []string{"a.example"}}, first: "x", want: listener.Way{Wanted: farAway, Names: []string{"a.example"}}},
		"a name that was said": {at: listener.Exit{Peek: true}, then: listener.Exit{Names: []string{"b.example"}}, first: "GET / HTTP/1.1\r\nHost: B.example\r\n\r\n",
			want: listener.Way{Wanted: farAway, Said: "b.example", Names: []string{"b.example"}}},
		"an ExternalService": {at: listener.Exit{Service: external, Names: []string{"c.example"}}, first: "x", want: listener.Way{Called: external, To: external, Wanted: farAway, Names: []string{"c.example"}}},
	} {
		t.Run(name, func(t *testing.T) {
			e := &exits{at: c.at, then: c.then}
			w := beyond(t, e)
			w.port.name, w.port.protocol = external, model.ProtocolTCP
			w.port.cluster = cluster.New(&model.Cluster{Name: external, ConnectTimeout: time.Second})
			w.port.cluster.SetEndpoints(&model.Endpoints{Cluster: external, Endpoints: []model.Endpoint{{Address: addrPort(w.program.Addr().String()), Weight: 1}}})
			client := w.outbound(farAway)
			write(t, client, c.first)
			server := w.arrives()
			read(t, server, c.first)
			w.do(w.relays.Review)
			write(t, server, "still here")
			read(t, client, "still here")
			e.mu.Lock()
			e.again = failure.EgressDenied
			e.mu.Unlock()
			w.do(w.relays.Review)
			wantReset(t, client)
			wantReset(t, server)
			if got := w.reason(); got != "egress_denied" {
				t.Errorf("the record says %q", got)
			}
			if r := w.records[0]; r.Decision.Refusal.By != "mode" {
				t.Errorf("the record does not say what ended it: %+v", r.Decision)
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			if len(e.ways) != 3 || !reflect.DeepEqual(e.ways[2], c.want) {
				t.Errorf("asked about %+v, want three times %+v", e.ways, c.want)
			}
		})
	}
}
