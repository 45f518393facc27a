package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// httpChain sends every request to a cluster.
func httpChain(cluster string) model.Chain { return model.Chain{HTTP: httpTo(cluster)} }

func httpTo(cluster string) *model.HTTP {
	return &model.HTTP{
		Routes: routes("inline", cluster), MaxHead: 60 << 10, MaxFields: 100, ServerName: "envoy", RequestID: true,
		HTTP1: model.HTTP1Options{AbsoluteURL: true}, IdleTimeout: time.Hour, StreamIdleTimeout: time.Minute, DrainTimeout: time.Second,
	}
}

func routes(name, cluster string) *model.RouteTable {
	return &model.RouteTable{Name: model.Free(name), Hosts: []model.VirtualHost{{Name: "all", Domains: []string{"*"},
		Routes: []model.Route{{Match: model.Match{Path: "/", PathPrefixText: true}, Backends: []model.Backend{{Cluster: model.Free(cluster), Weight: 1}}}}}}}
}

func listener(name string, chains ...model.Chain) model.Listener {
	return model.Listener{Name: name, Addresses: []netip.AddrPort{loopback}, Chains: chains}
}

// static adds a cluster with the addresses of some servers.
func static(b *model.Bootstrap, name string, at ...netip.AddrPort) *model.Cluster {
	b.Clusters = append(b.Clusters, model.Cluster{Name: model.Free(name), ConnectTimeout: time.Second, Discovery: model.DiscoveryStatic})
	b.Endpoints = append(b.Endpoints, *endpoints(name, at...))
	return &b.Clusters[len(b.Clusters)-1]
}

func endpoints(name string, at ...netip.AddrPort) *model.Endpoints {
	e := &model.Endpoints{Cluster: model.Free(name)}
	for _, a := range at {
		e.Endpoints = append(e.Endpoints, model.Endpoint{Address: a, Weight: 1})
	}
	return e
}

func start(t *testing.T, b *model.Bootstrap) *gateway.Gateway {
	t.Helper()
	g, err := gateway.Start(gateway.Config{Bootstrap: b, Loops: 2, Drain: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// origin is a server that answers its name and what it was asked.
func origin(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %s", name, r.Proto, r.Method, r.URL.Path, body)
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
}

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != 200 {
		t.Fatalf("%s: %s %q", url, r.Status, b)
	}
	return string(b)
}

func TestPlainHTTP1(t *testing.T) {
	b := &model.Bootstrap{}
	static(b, "one", origin(t, "one"))
	b.Listeners = []model.Listener{listener("l", httpChain("one"))}
	g := start(t, b)
	if err := g.Ready(); err != nil {
		t.Fatal(err)
	}
	at := g.Listening("l")[0]
	if got := get(t, http.DefaultClient, "http://"+at.String()+"/x"); got != "one HTTP/1.1 GET /x " {
		t.Errorf("%q", got)
	}
}
