package downstream_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// TestWideWindow: a window that a cluster opens wide is not what is held for a client that does not read.
func TestWideWindow(t *testing.T) {
	var wrote atomic.Int64
	program := h2cServer(t, func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 64<<10)
		for wrote.Load() < 200<<20 {
			n, err := w.Write(b)
			if wrote.Add(int64(n)); err != nil {
				return
			}
		}
	})
	table, err := router.Compile(&model.RouteTable{Name: model.Free("t"), Hosts: []model.VirtualHost{{Domains: []string{"*"}, Routes: []model.Route{{
		Name: "all", Match: model.Match{Path: "/", PathPrefixText: true}, Backends: []model.Backend{{Cluster: model.Free("c"), Weight: 1}}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	m := &model.Cluster{Name: model.Free("c"), ConnectTimeout: 2 * time.Second}
	m.Upstream.Version = model.UpstreamHTTP2
	m.Upstream.HTTP2.Window, m.Upstream.HTTP2.ConnectionWindow = 1<<28, 1<<30
	c := cluster.New(m)
	c.SetEndpoints(&model.Endpoints{Endpoints: []model.Endpoint{{Address: program, Weight: 1}}})
	d := &services{table: table, clusters: map[model.PortName]*cluster.Cluster{model.Free("c"): c}}
	p := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: d, HTTP: &model.HTTP{}}})
	w := raw(t, p)
	w.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	last, same := int64(-1), 0
	for same < 10 {
		time.Sleep(100 * time.Millisecond) // poll
		if n := wrote.Load(); n == last && n > 0 {
			same++
		} else {
			last, same = n, 0
		}
	}
	if last > 32<<20 {
		t.Errorf("%d MB were taken for a client that reads nothing", last>>20)
	}
}
