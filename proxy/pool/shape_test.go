package pool_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/pool"
)

// TestShape: what a cluster says about connections holds inside the mesh as outside; what it does not say leaves connections
// shared.
func TestShape(t *testing.T) {
	var opened atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	srv.Config.Protocols = &http.Protocols{}
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	ep := &model.Endpoint{Workload: "w", Namespace: "default", Address: address(t, srv.Listener.Addr().String()), Port: 80, Identity: "spiffe://a/ns/default/sa/w"}
	shaped := func(m *model.Cluster) (*bench, *pool.Target, *cluster.Cluster) {
		c := cluster.New(m)
		target := pool.MeshTarget(ep)
		target.Shape(m, c.Breaker(model.PriorityDefault))
		opened.Store(0)
		return newBench(t, pool.Config{}), &target, c
	}
	ask := func(b *bench, target *pool.Target) *user {
		u := newUser()
		b.do(func() { u.get(b.pool, target) })
		b.until("the response", func() bool { return u.ended || u.failed != failure.None })
		return u
	}

	b, target, _ := shaped(&model.Cluster{ConnectTimeout: time.Second, Outlier: &model.Outlier{}, Balancing: model.Balancing{Policy: model.Random}})
	if *target != pool.MeshTarget(ep) {
		t.Errorf("nothing about connections: %+v", target)
	}
	ask(b, target)

	b, target, _ = shaped(&model.Cluster{IdleTimeout: 100 * time.Millisecond})
	ask(b, target)
	b.until("the end of the idle connection", func() bool { return b.pool.Conns() == 0 })

	b, target, _ = shaped(&model.Cluster{MaxRequests: 2})
	for range 6 {
		ask(b, target)
	}
	if n := opened.Load(); n != 3 {
		t.Errorf("%d connections for 6 requests, 2 each", n)
	}

	b, target, c := shaped(&model.Cluster{Breakers: [2]model.Breakers{{Connections: 1, Pending: 1}}})
	one, two := newUser(), newUser()
	b.do(func() { one.get(b.pool, target); two.get(b.pool, target) }) // both before there is a connection
	if two.failed != failure.Overflow {
		t.Errorf("the second that waits: %v", two.failed)
	}
	b.until("the response", func() bool { return one.ended })
	if n := c.Breaker(model.PriorityDefault).Now(cluster.Connections); n != 1 {
		t.Errorf("%d connections are counted", n)
	}
}
