package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// counted is an origin that counts the connections it has had, and those it has.
type counted struct {
	at        netip.AddrPort
	had, open atomic.Int64
}

func countedOrigin(t *testing.T) *counted {
	t.Helper()
	o := &counted{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one") }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			o.had.Add(1)
			o.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			o.open.Add(-1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	o.at = netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
	return o
}

// told is everything a control plane says about one cluster, made anew.
func told(at netip.AddrPort) model.Updates {
	c, panicAt := eds("one"), 30.0
	c.Balancing.Panic, c.Outlier = &panicAt, &model.Outlier{Interval: time.Hour}
	return model.Updates{Clusters: []model.Cluster{c}, Endpoints: []*model.Endpoints{endpoints("one", at)},
		Routes: []*model.RouteTable{routes("r", "one")}, Listeners: []model.Listener{listener("l", rds("r"))}}
}

// TestSameAgain: what is told again as it is changes nothing, neither connections to servers nor those of clients.
func TestSameAgain(t *testing.T) {
	o := countedOrigin(t)
	g := start(t, dynamic(5*time.Second))
	apply(t, g, told(o.at))
	apply(t, g, told(o.at)) // the table is asked for by the listener
	const conns = 4
	stop := load(t, g.Listening("l")[0].String(), conns, func(string) error { return nil })
	waitFor(t, func() error {
		if n := g.Connections(); n != conns {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	before := time.Now()
	for n := 0; n < 100 || time.Since(before) < 500*time.Millisecond; n++ {
		apply(t, g, told(o.at))
	}
	n, had := stop(), o.had.Load()
	if had > conns || n < 100 {
		t.Errorf("%d requests on %d connections, want at most %d", n, had, conns)
	}
}

// TestLeftConnections: connections that were made for another version of their cluster, or to endpoints that are no more,
// end when nothing is under way on them.
func TestLeftConnections(t *testing.T) {
	one, two := countedOrigin(t), countedOrigin(t)
	g := start(t, dynamic(5*time.Second))
	apply(t, g, told(one.at))
	apply(t, g, told(one.at))
	c := client(t, g.Listening("l")[0], nil, "1")
	get(t, c, "http://a.test/")
	gone := func(what string, o *counted, had int64) {
		t.Helper()
		waitFor(t, func() error {
			if n := o.open.Load(); n > 0 || o.had.Load() != had {
				return fmt.Errorf("%s: %d connections are open, of %d", what, n, o.had.Load())
			}
			return nil
		})
	}
	changed := told(one.at)
	changed.Clusters[0].MaxRequests = 100
	apply(t, g, changed)
	gone("the cluster has changed", one, 1)
	get(t, c, "http://a.test/")
	changed.Endpoints = []*model.Endpoints{endpoints("one", two.at)}
	apply(t, g, changed)
	gone("the endpoint is no more", one, 2)
	get(t, c, "http://a.test/")
	apply(t, g, model.Updates{Removed: []model.Removed{{Kind: model.ResourceCluster, Name: "one"}}})
	gone("the cluster is no more", two, 1)
}
