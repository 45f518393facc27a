package push_test

import (
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/client"
)

// policies is a sink for Securities.
type policies struct {
	told
	got chan *model.Security
}

func (p policies) Security(_ string, m *model.Security) error { p.got <- m; return nil }

// TestPoliciesAreConcealed: a proxy is told the policies of the services that its identity may serve; of others it is told that
// there are none, by name and by wildcard.
func TestPoliciesAreConcealed(t *testing.T) {
	m := newMesh(t, time.Nanosecond)
	m.join("cart", "cart-1")
	within(t, 5*time.Second, "cart is there", func() bool { _, ok := m.registry.Service(cart.Service); return ok })
	for account, want := range map[string]bool{"cart": true, "web": false} {
		sink := policies{told{make(chan *model.Service, 10), make(chan *model.RouteTable, 10)}, make(chan *model.Security, 10)}
		c, err := client.New(client.Config{Address: m.address, Identity: m.authority.Issue(meshID(account)), Server: meshID("control"), Log: quiet,
			Workload: client.Workload{Name: account + "-2", Namespace: "default", Service: account}})
		if err != nil {
			t.Fatal(err)
		}
		c.Start(sink)
		t.Cleanup(c.Close)
		c.Subscribe(client.KindSecurity, cart.Service.String())
		if s := next(t, sink.got); (s != nil) != want {
			t.Errorf("%s was told %+v", account, s)
		}
	}
}
