package live_test

import (
	"slices"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/live"
)

// TestOwn: of a workload's own port the table alone is subscribed, also while the workload calls itself and after.
func TestOwn(t *testing.T) {
	f := start(t, live.Config{})
	own := f.Own(portName("reviews.default:80"))
	if got := f.src.list(); !slices.Equal(got, []string{"route table reviews.default:80"}) {
		t.Errorf("subscribed: %v", got)
	}
	if own.Table() != nil {
		t.Error("a table before one was told")
	}
	m := table("reviews.default:80", "reviews.default:80")
	m.Inbound = &model.Inbound{MaxRequests: 7}
	f.RouteTable("reviews.default:80", m)
	if got := own.Table(); got == nil || got.Model.Inbound.MaxRequests != 7 {
		t.Errorf("%+v", got)
	}
	g := f.ask("198.18.0.5:80") // the workload calls itself: the table is there already
	f.Service("198.18.0.5", service("reviews.default", "198.18.0.5", 80))
	f.cluster("reviews.default:80")
	f.loop.turn(0)
	if g.port == nil || g.port.Routes().Model.Inbound == nil {
		t.Errorf("the workload cannot call itself: %+v", g)
	}
	f.RouteTable("reviews.default:80", nil)
	if own.Table().Model.Inbound != nil || f.Own(portName("reviews.default:80")) != own {
		t.Error("what was taken back is in force")
	}
}
