package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/control/recall"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/model/flight"
)

// TestExplain: only who may administer the mesh is answered, with the requests that he asks for, and with whose proxies were not asked.
func TestExplain(t *testing.T) {
	s := mem.New(0)
	t.Cleanup(func() { s.Close() })
	busy, asked := false, flight.Question{}
	a := httpapi.New(httpapi.Config{Store: s, Registry: view{}, Tokens: token.New(s, func() []byte { return nil }), Admin: admin, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Recall: func(_ context.Context, q flight.Question) (flight.Found, error) {
			if asked = q; busy {
				return flight.Found{}, recall.ErrBusy
			}
			return flight.Found{Asked: 1, Names: []string{"shop/cart-1"}, Of: []flight.Explained{
				{Request: "x", Direction: "inbound", Service: "cart", Namespace: "shop", Status: 403, Decision: &flight.Decided{Verdict: "denied"}},
				{Request: "x", Direction: "outbound", Service: "web", Namespace: "shop", Destination: "cart.shop", Status: 403},
				{Request: "y", Direction: "outbound", Service: "web", Namespace: "shop", Destination: "cart.shop", Status: 200}}}, nil
		}})
	h := a.RemoteServer().Handler
	get := func(query, token string) (int, string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/explain"+query, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	if code, text := get("?service=nobody", admin); code != http.StatusNotFound || !strings.Contains(text, "there is no Service of that name") {
		t.Errorf("of a service that is not there: %d %s", code, text)
	}
	for query, want := range map[string]string{"": "[outbound x inbound x outbound y]", "?denied=true": "[outbound x inbound x]", "?last=1&service=cart": "[outbound x inbound x]", "?failed=true": "[outbound x inbound x]"} {
		code, text := get(query, admin)
		var found flight.Found
		if err := json.Unmarshal([]byte(text), &found); err != nil || code != http.StatusOK {
			t.Fatalf("%s: %d %s", query, code, text)
		}
		got := []string{}
		for _, e := range found.Of {
			got = append(got, e.Direction+" "+e.Request)
		}
		if fmt.Sprint(got) != want || asked.Last != flight.MaxLast || asked.Denied {
			t.Errorf("%s: %v, want %s; %+v", query, got, want, asked)
		}
		if len(found.Silent) != 1 || found.Silent[0].Workload != "default/reviews-1" || !strings.Contains(found.Silent[0].Why, "not connected to this control plane") {
			t.Errorf("%+v", found.Silent)
		}
	}
	for query, want := range map[string]int{"?last=0": 400, "?last=x": 400, "?denied=perhaps": 400, "?id=" + strings.Repeat("x", flight.MaxID+1): 400} {
		if code, text := get(query, admin); code != want {
			t.Errorf("%.20s: %d %s", query, code, text)
		}
	}
	if code, _ := get("", "x"); code != http.StatusUnauthorized {
		t.Errorf("a stranger: %d", code)
	}
	busy = true
	if code, text := get("", admin); code != http.StatusServiceUnavailable || !strings.Contains(text, "ask again") {
		t.Errorf("%d %s", code, text)
	}
}
