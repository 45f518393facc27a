package downstream_test

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/exchange"
)

// TestShedElsewhere: what an endpoint's proxy has shed, a payment too, is tried once on another endpoint, never on the same
// one, and only within the budget.
func TestShedElsewhere(t *testing.T) {
	for _, c := range []struct {
		name      string
		busy      int // endpoints of two that are full
		endpoints int
		budget    model.Budget
		retry     *model.Retry
		status    int
		attempts  int // most of any request
	}{
		{"one of two is full", 1, 2, model.Budget{}, nil, 200, 2},
		{"though the policy tries the same one again", 1, 2, model.Budget{}, &model.Retry{On: model.RetryReset, Attempts: 2, Base: time.Hour}, 200, 2},
		{"both are full", 2, 2, model.Budget{}, nil, 503, 2},
		{"there is one", 1, 1, model.Budget{}, nil, 503, 1},
		{"never again", 2, 2, model.Budget{}, &model.Retry{Attempts: 0}, 503, 1},
		{"no budget", 2, 2, model.Budget{Percent: 1}, nil, 503, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			release := make(chan struct{})
			held := make(chan int, 2)
			defer func() {
				close(release)
				for range c.busy {
					<-held
				}
			}()
			var atWork atomic.Int32
			slow := func(w http.ResponseWriter, r *http.Request) {
				if r.Method == "GET" {
					atWork.Add(1)
					<-release
				}
				fine(w, r)
			}
			var hops []*hop
			var addrs []netip.AddrPort
			for range c.endpoints {
				o := inbound(addrOf(t, serve(t, slow)))
				o.Mesh, o.Gate = true, admission.New(admission.Config{})
				if err := o.Gate.Set(admission.Terms{Inbound: &model.Inbound{MaxRequests: 1}}); err != nil {
					t.Fatal(err)
				}
				hops = append(hops, newHop(t, setup{origin: o, http2: true}))
				addrs = append(addrs, mesh(hops[len(hops)-1]))
			}
			for _, a := range addrs[:c.busy] {
				direct := caller(t, model.Timeouts{}, a)
				go func() { held <- get(t, client(t), direct.url("/")).StatusCode }()
			}
			hops[0].until("full", func() bool { return atWork.Load() == int32(c.busy) })
			d := byRoute(t, model.Route{Retry: c.retry}, addrs...)
			d.clusters[cart].Set(&model.Cluster{Name: cart, ConnectTimeout: 2 * time.Second, Budget: c.budget})
			p := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: d, Service: cart}})
			for range 8 {
				res, err := client(t).Post(p.url("/"), "text/plain", strings.NewReader("pay"))
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				if res.StatusCode != c.status || c.status == 503 && res.Header.Get("Tulle-Reason") != "shed" {
					t.Errorf("%d %v", res.StatusCode, res.Header)
				}
			}
			p.until("eight records", func() bool { return p.log.count() == 8 })
			most := 0
			for _, r := range p.log.each() {
				most = max(most, r.NAttempts)
				if c.status == 200 && r.Reason != "" {
					t.Errorf("answered, and recorded as %q", r.Reason)
				}
				if r.NAttempts == 2 && r.Attempts[0].Address == r.Attempts[1].Address {
					t.Errorf("twice to %v", r.Attempts[0].Address)
				}
			}
			if most != c.attempts {
				t.Errorf("%d attempts, not %d", most, c.attempts)
			}
		})
	}
}

// each answers the records so far.
func (r *records) each() []record.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}
