package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/gateway"
)

const plainGet = "GET / HTTP/1.1\nHost: a\nConnection: close"

func TestLocalRateLimit(t *testing.T) {
	own := everything("one")
	own.Match.Path = "/own"
	own.Limits = []model.RateLimit{{Name: "local_ratelimit", Requests: 1, Window: time.Hour, Status: 503}}
	asks := everything("one")
	asks.Match.Path = "/asks" // nobody is to be asked
	asks.Limits = []model.RateLimit{{Name: "ratelimit", Global: &model.GlobalLimit{}, By: []model.RateKey{{Kind: model.RateByAddress}}}}
	at := acting(t, func(h *model.HTTP) {
		h.Inbound = &model.Inbound{Limits: []model.RateLimit{{Name: "local_ratelimit", Requests: 2, Window: time.Hour}}}
	}, []string{"one"}, own, asks, everything("one"))
	for i, want := range []int{200, 503, 503} {
		if r, _ := answer(t, at, "GET /own HTTP/1.1\nHost: a\nConnection: close"); r.StatusCode != want {
			t.Errorf("of the route, %d: %d", i, r.StatusCode)
		}
	}
	if r, _ := answer(t, at, "GET /asks HTTP/1.1\nHost: a\nConnection: close"); r.StatusCode != 200 {
		t.Errorf("without a service to ask: %d", r.StatusCode)
	}
	for i, want := range []int{200, 429} {
		r, _ := answer(t, at, plainGet)
		if r.StatusCode != want || want == 429 && r.Header.Get("X-Envoy-Ratelimited") != "true" {
			t.Errorf("of the chain, %d: %d %v", i, r.StatusCode, r.Header)
		}
	}
}

// TestLimitHoldsOverLoops: exactly as many requests as are allowed pass, from many connections on several loops.
func TestLimitHoldsOverLoops(t *testing.T) {
	const allowed = 500
	b := &model.Bootstrap{}
	static(b, "one", fixed(t, []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")))
	l := listener("l", httpChain("one"))
	l.Chains[0].HTTP.Inbound = &model.Inbound{Limits: []model.RateLimit{{Name: "x", Requests: allowed, Window: 24 * time.Hour}}}
	b.Listeners = []model.Listener{l}
	g, err := gateway.Start(gateway.Config{Bootstrap: b, Loops: 4, Drain: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	url := "http://" + g.Listening("l")[0].String() + "/"
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{}, Timeout: 20 * time.Second}
			defer c.CloseIdleConnections()
			for range 50 {
				res, err := c.Get(url)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if res.StatusCode == 200 {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := passed.Load(); n != allowed {
		t.Errorf("%d of 800 passed, %d are allowed", n, allowed)
	}
}

func TestConnectionLimits(t *testing.T) {
	b := &model.Bootstrap{}
	static(b, "one", fixed(t, []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")))
	http1, tcp := listener("http", httpChain("one")), listener("tcp", tcpChain("one"))
	http1.Chains[0].MaxConnections, tcp.Chains[0].ConnectionRate = 2, &model.RateLimit{Requests: 2, Window: time.Hour}
	b.Listeners = []model.Listener{http1, tcp}
	g := start(t, b)
	serves := func(at netip.AddrPort) (net.Conn, bool) {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			return nil, false // refused that early
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err = c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")); err == nil {
			_, err = c.Read(make([]byte, 100))
		}
		return c, err == nil
	}
	at := g.Listening("http")[0]
	a, one := serves(at)
	_, two := serves(at)
	_, three := serves(at)
	if !one || !two || three {
		t.Errorf("served: %v %v %v; two at a time are", one, two, three)
	}
	_ = a.Close()
	for end := time.Now().Add(5 * time.Second); ; { // poll: until the place is free
		if _, again := serves(at); again {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no place came free")
		}
	}
	var got string
	for range 3 {
		_, ok := serves(g.Listening("tcp")[0])
		got += fmt.Sprint(ok, " ")
	}
	if got != "true true false " {
		t.Errorf("new connections: %s", got)
	}
}
