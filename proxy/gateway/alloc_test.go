//go:build !race

package gateway_test

import (
	"bytes"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// TestNoAllocationPerRequest: a request through real sockets, with virtual hosts, metrics and an access log, allocates
// nothing in the steady state; nor where outliers are looked for.
func TestNoAllocationPerRequest(t *testing.T) {
	t.Run("plain", func(t *testing.T) { allocations(t, nil, model.Balancing{}) })
	t.Run("outliers", func(t *testing.T) { allocations(t, strict(), model.Balancing{}) })
	t.Run("latency", func(t *testing.T) { allocations(t, nil, model.Balancing{Policy: model.PeakEWMA}) })
	t.Run("reports", func(t *testing.T) { allocations(t, nil, model.Balancing{Policy: model.LeastUtilized}) })
	t.Run("locality", func(t *testing.T) {
		allocations(t, nil, model.Balancing{SlowStart: model.SlowStart{Window: time.Hour}, Locality: model.LocalityOptions{Mode: model.LocalityPrefer, SpillAt: 5}})
	})
}

func allocations(t *testing.T, outlier *model.Outlier, balancing model.Balancing) {
	allocationsWith(t, outlier, balancing, func(*model.HTTP) {})
}

func allocationsOf(t *testing.T, set func(*model.HTTP)) {
	allocationsWith(t, nil, model.Balancing{}, set)
}

func allocationsWith(t *testing.T, outlier *model.Outlier, balancing model.Balancing, set func(*model.HTTP)) {
	b := &model.Bootstrap{Node: model.Node{Locality: "eu/1/a"}}
	one := static(b, "one", fixed(t, []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nEndpoint-Load-Metrics: TEXT cpu_utilization=0.5,rps_fractional=10\r\nX-Y: z\r\n\r\nok")))
	one.Outlier, one.Balancing = outlier, balancing
	l := listener("l", httpChain("one"))
	l.Chains[0].HTTP.UseRemoteAddress = true
	l.Chains[0].HTTP.Routes.Hosts[0].Domains = []string{"*.test", "other"}
	l.Chains[0].HTTP.AccessLogs = []model.AccessLog{{Path: filepath.Join(t.TempDir(), "log")}}
	set(l.Chains[0].HTTP)
	b.Listeners = []model.Listener{l}
	c := dial(t, start(t, b).Listening("l")[0], nil)
	request, buf := []byte("GET /some/path?q=1 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: u\r\n\r\n"), make([]byte, 4096)
	exchange := func(times int) {
		for range times {
			if _, err := c.Write(request); err != nil {
				t.Fatal(err)
			}
			for n := 0; !bytes.HasSuffix(buf[:n], []byte("\r\n\r\nok")); {
				k, err := c.Read(buf[n:])
				if err != nil {
					t.Fatal(err)
				}
				n += k
			}
		}
	}
	exchange(200)
	const times = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	exchange(times)
	runtime.ReadMemStats(&after)
	if per := float64(after.Mallocs-before.Mallocs) / times; per > 0.1 {
		t.Errorf("%.2f allocations per request", per)
	}
}

// TestNoAllocationLimited is for what the chain's limits cost.
func TestNoAllocationLimited(t *testing.T) {
	allocationsOf(t, func(h *model.HTTP) {
		h.Inbound = &model.Inbound{Adaptive: &model.Adaptive{}, Limits: []model.RateLimit{{Name: "x", Requests: 1 << 30, Window: time.Second}}}
	})
}
