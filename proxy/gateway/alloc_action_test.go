//go:build !race

package gateway_test

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// TestNoAllocationPerAction: what routes do themselves allocates nothing either, each action switched on.
func TestNoAllocationPerAction(t *testing.T) {
	const none = "Cookie: x=y"
	for _, c := range []struct {
		name, field string
		set         func(h *model.HTTP, r *model.Route)
	}{
		{"rewrite", none, func(_ *model.HTTP, r *model.Route) { r.Rewrite = model.Rewrite{Prefix: "/v1", HasPrefix: true} }},
		{"redirect", none, func(_ *model.HTTP, r *model.Route) { r.Redirect = &model.Redirect{Host: "other", Status: 302} }},
		{"cors", "Origin: https://a", func(h *model.HTTP, r *model.Route) {
			h.CORS, r.CORS = true, &model.CORS{Origins: []model.OriginMatch{{Regex: "https://.*"}}, Expose: []string{"x-a", "x-b"}, Credentials: true}
		}},
		{"fault", none, func(h *model.HTTP, r *model.Route) {
			h.Fault, r.Fault = &model.Fault{}, &model.Fault{Status: 500, AbortShare: 1, Delay: time.Second, DelayShare: 1, Rate: 1 << 20, RateShare: 1_000_000}
		}},
		{"sticky", "X-User: 7", func(_ *model.HTTP, r *model.Route) {
			r.Backends = append(r.Backends, r.Backends[0])
			r.Sticky = []model.HashKey{{Kind: model.HashHeader, Name: "x-user"}}
		}},
		{"new session", none, func(h *model.HTTP, _ *model.Route) { h.Session = &model.Session{Cookie: "sid", Lifetime: time.Hour} }},
		{"session by header", none, func(h *model.HTTP, _ *model.Route) { h.Session = &model.Session{Header: "x-session"} }},
		{"mirrors", none, func(_ *model.HTTP, r *model.Route) {
			r.Mirrors = []model.Mirror{{Cluster: model.Free("one"), Suffix: true}, {Cluster: model.Free("one"), Fraction: 500_000}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &model.Bootstrap{}
			static(b, "one", fixed(t, []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Y: z\r\n\r\nok")))
			l := listener("l", httpChain("one"))
			h := l.Chains[0].HTTP
			c.set(h, &h.Routes.Hosts[0].Routes[0])
			b.Listeners = []model.Listener{l}
			conn := dial(t, start(t, b).Listening("l")[0], nil)
			request, buf := []byte("GET /some/path?q=1 HTTP/1.1\r\nHost: a.test\r\n"+c.field+"\r\n\r\n"), make([]byte, 4096)
			end := []byte("\r\n\r\nok")
			if h.Routes.Hosts[0].Routes[0].Redirect != nil {
				end = endOfHead
			}
			exchange := func(times int) {
				for range times {
					if _, err := conn.Write(request); err != nil {
						t.Fatal(err)
					}
					for n := 0; !bytes.HasSuffix(buf[:n], end); {
						k, err := conn.Read(buf[n:])
						if err != nil {
							t.Fatal(err)
						}
						n += k
					}
				}
			}
			exchange(500)
			const times = 2000
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			exchange(times)
			runtime.ReadMemStats(&after)
			if per := float64(after.Mallocs-before.Mallocs) / times; per > 0.1 {
				t.Errorf("%.2f allocations per request", per)
			}
		})
	}
}
