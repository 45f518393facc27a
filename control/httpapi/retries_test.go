package httpapi_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/control/outage"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/model"
)

// TestRetries: what was learned is listed with the waits that follow, and with the routes that have their own.
func TestRetries(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	d := outage.Destination{Name: model.PortName{Service: model.ServiceName{Namespace: "default", Name: "reviews"}, Port: 9080},
		Last: []outage.Outage{{Began: now, Ended: now.Add(time.Second), Callers: 3}, {Began: now.Add(time.Hour), Ended: now.Add(time.Hour + 200*time.Millisecond), Callers: 1}}}
	d.Made, d.Refused, d.Left, d.LeftAt = 40, 7, 3, time.Now()
	for range 20 {
		d.Learned.Service.Add(now, 200*time.Millisecond)
	}
	s := mem.New(0)
	defer s.Close()
	a := httpapi.New(httpapi.Config{Store: s, Registry: view{}, Tokens: token.New(s, func() []byte { return nil }), Admin: admin, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Outages: func() []outage.Destination { return []outage.Destination{d} },
		RouteTable: func(n model.PortName) (*model.RouteTable, bool) {
			return &model.RouteTable{Name: n, Routes: []model.Route{{Name: "HTTPRoute/default/r", Retry: &model.Retry{Base: time.Second, Max: time.Minute}},
				{Name: "HTTPRoute/default/s", Rule: 1, Retry: &model.Retry{Least: time.Millisecond, Max: 100 * time.Millisecond}}, {Name: "HTTPRoute/default/t"}}}, n == d.Name
		}})
	srv := httptest.NewServer(a.RemoteServer().Handler)
	defer srv.Close()
	req, err := http.NewRequest(http.MethodGet, srv.URL+"/v1/retries?service=reviews", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list []httpapi.Retries
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 {
		t.Fatalf("%+v", list)
	}
	r := list[0]
	if !r.Learned || r.Whole.Outages != 20 || r.Whole.P50 < 190 || r.Whole.P50 > 230 || len(r.Waits) != 4 || r.Waits[0].From > 200 || r.Waits[0].To < 200 {
		t.Errorf("%+v", r)
	}
	if len(r.Last) != 2 || r.Last[0].Lasted != 200 || r.Last[1].Callers != 3 || len(r.Pinned) != 1 || r.Pinned[0] != "HTTPRoute/default/r[0]: 1s to 1m0s" {
		t.Errorf("%+v", r)
	}
	if len(r.Routes) != 2 || !r.Routes[0].Pinned || r.Routes[0].Base != 1000 || r.Routes[0].Waits != nil {
		t.Errorf("%+v", r.Routes)
	} else if p := r.Routes[1]; p.Pinned || p.Route != "HTTPRoute/default/s[1]" || len(p.Waits) != 4 || p.Waits[0].From != 100 || p.Waits[0].To != 100 {
		t.Errorf("waits are not within what the policy allows: %+v", p)
	}
	if r.Made != 40 || r.Refused != 7 || r.Left == nil || *r.Left != 3 {
		t.Errorf("%d made, %d refused, %v left", r.Made, r.Refused, r.Left)
	}
}
