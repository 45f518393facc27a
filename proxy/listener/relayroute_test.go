package listener_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
)

// helloFor answers a ClientHello that names a server.
func helloFor(t *testing.T, name string) string {
	t.Helper()
	a, b := net.Pipe()
	go func() {
		_ = tls.Client(a, &tls.Config{ServerName: name, InsecureSkipVerify: name == ""}).Handshake()
	}()
	p := make([]byte, 16<<10)
	n, err := b.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	return string(p[:n])
}

// TestByServerName: the server name of a ClientHello, which may come in pieces, chooses the route; no byte is lost.
func TestByServerName(t *testing.T) {
	w := newWorld(t)
	w.port.protocol = model.ProtocolTLS
	own := []model.Backend{{Cluster: w.port.name, Weight: 1}}
	w.port.relays = []model.RelayRoute{{Name: "TLSRoute/default/a", SNI: []string{"a.example"}, Backends: own}, {Name: "TLSRoute/default/wild", SNI: []string{"*.b.example"}, Backends: own},
		{Name: "TLSRoute/default/none", SNI: []string{"none.example"}}}
	for i, c := range []struct{ name, route, reason string }{{"a.example", "TLSRoute/default/a", ""}, {"x.b.example", "TLSRoute/default/wild", ""},
		{"none.example", "TLSRoute/default/none", "no_backend"}, {"c.example", "", "no_route"}, {"", "", "no_route"}} {
		hello := helloFor(t, c.name)
		if c.reason != "" {
			client := w.outbound(w.vip)
			write(t, client, hello)
			wantReset(t, client)
			w.until("a refusal", func() bool { return len(w.records) == 4+i-1 })
			if r := w.records[len(w.records)-1]; r.Reason != c.reason || r.Route != c.route {
				t.Errorf("%q: %q by %q", c.name, r.Reason, r.Route)
			}
			continue
		}
		client := w.outbound(w.vip)
		write(t, client, hello[:40])
		write(t, client, hello[40:])
		server := w.arrives()
		read(t, server, hello)
		client.Close()
		server.Close()
		w.until("both proxies' records", func() bool { return len(w.records) == 2*(i+1) })
		found := false
		for _, r := range w.records[2*i:] {
			found = found || r.Route == c.route
		}
		if !found {
			t.Errorf("%q: no record by %s: %+v", c.name, c.route, w.records[2*i:])
		}
	}
	if bytes.Contains([]byte(helloFor(t, "")), []byte("example")) {
		t.Error("the test's own ClientHello names a server")
	}
}

// TestRelayFault: what a route injects happens to the connections that it takes.
func TestRelayFault(t *testing.T) {
	w := newWorld(t)
	w.port.protocol = model.ProtocolTCP
	w.port.relays = []model.RelayRoute{{Name: "TCPRoute/default/db", Backends: []model.Backend{{Cluster: w.port.name, Weight: 1}},
		Fault: &model.Fault{Reset: true, AbortShare: 1_000_000, Delay: 20 * time.Millisecond, DelayShare: 1_000_000}}}
	client := w.outbound(w.vip)
	if n, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%d %v", n, err)
	}
	w.until("a record of it", func() bool {
		return slices.ContainsFunc(w.records, func(r record.Record) bool { return r.Reason == "fault_injected" && r.Route == "TCPRoute/default/db" })
	})
}

// TestByPort: a port whose route looks at no name sends its connections to the route's backends, whoever speaks first.
func TestByPort(t *testing.T) {
	w := newWorld(t)
	w.port.protocol = model.ProtocolTCP
	w.port.relays = []model.RelayRoute{{Name: "TCPRoute/default/db", Backends: []model.Backend{{Cluster: w.port.name, Weight: 1}}}}
	client := w.outbound(w.vip)
	server := w.arrives()
	write(t, server, "welcome")
	read(t, client, "welcome")
	client.Close()
	server.Close()
	w.until("both proxies' records", func() bool { return len(w.records) == 2 })
	if w.records[0].Route+w.records[1].Route != "TCPRoute/default/db" {
		t.Errorf("records %+v", w.records)
	}
}

// TestRelayFallback: a connection that no endpoint of the route's backend can take goes to its fallback, and is ended when nothing
// moves for as long as the route says.
func TestRelayFallback(t *testing.T) {
	w := newWorld(t)
	w.port.protocol = model.ProtocolTCP
	nobody := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "nobody"}, Port: 1}
	w.port.others = map[model.PortName]*cluster.Cluster{nobody: cluster.New(&model.Cluster{Name: nobody, ConnectTimeout: time.Second})}
	w.port.relays = []model.RelayRoute{{Name: "TCPRoute/default/db", Backends: []model.Backend{{Cluster: nobody, Weight: 1}},
		Fallback: &model.Backend{Cluster: w.port.name, Weight: 1}, Idle: 300 * time.Millisecond}}
	client := w.outbound(w.vip)
	server := w.arrives()
	write(t, server, "welcome")
	read(t, client, "welcome")
	if n, err := client.Read(make([]byte, 1)); err == nil {
		t.Errorf("it went on after the idle timeout: %d", n)
	}
	server.Close()
	w.until("a record of it", func() bool {
		return slices.ContainsFunc(w.records, func(r record.Record) bool { return r.Reason == "idle_timeout" && r.Route == "TCPRoute/default/db" })
	})
}
