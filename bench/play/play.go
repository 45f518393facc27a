// Package play is the programs of the benchmark's plays: services with a known capacity that fail as they are told and call each
// other, and a client that offers a constant rate whatever happens. It counts what reached a service and what was answered in
// time; it measures no times. One goroutine per request, as many as rate and patience allow. Start reading at Serve.
package play

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Conduct is how a service answers, from when it is told.
type Conduct struct {
	Fail    float64       // share of the requests that it answers with 503
	Work    time.Duration // what each takes one worker; nobody's going shortens it
	Workers int           // who work at a time, first come, first served; 0: any number
	Next    string        // URL that it calls for each request; that answer is its own
}

// Order is a load.
type Order struct {
	URL      string
	Rate     float64       // requests a second
	Lead     time.Duration // at the beginning, that does not count
	For      time.Duration // after it
	Patience time.Duration // with each answer
	Classes  []Class       // none: one without a name
}

// Class is a share of an order's requests, told in the field x-class.
type Class struct {
	Name  string
	Share float64 // of 1
}

// Outcome is what came of the requests of a class.
type Outcome struct{ Offered, Good int }

// Player is one program.
type Player struct {
	is  atomic.Pointer[staged]
	got atomic.Int64
	out *http.Client
}

type staged struct {
	Conduct
	workers chan struct{}
}

// Serve answers requests at address and orders at a unix socket until one of them cannot be listened on.
func Serve(address, socket string) error {
	p := &Player{out: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4096, DisableCompression: true}}}
	p.is.Store(&staged{})
	ends := make(chan error, 2)
	for _, s := range []struct {
		network, address string
		serve            http.HandlerFunc
	}{{"tcp", address, p.answer}, {"unix", socket, p.steer}} {
		l, err := net.Listen(s.network, s.address)
		if err != nil {
			return err
		}
		go func() { ends <- http.Serve(l, s.serve) }()
	}
	return <-ends
}

// answer answers a request of the play.
func (p *Player) answer(w http.ResponseWriter, r *http.Request) {
	p.got.Add(1)
	c := p.is.Load()
	if c.Work > 0 {
		if c.workers != nil {
			c.workers <- struct{}{}
		}
		<-time.After(c.Work)
		if c.workers != nil {
			<-c.workers
		}
	}
	code := http.StatusOK
	switch {
	case rand.Float64() < c.Fail:
		code = http.StatusServiceUnavailable
	case c.Next != "":
		code = p.call(r.Context(), c.Next, map[string]string{"X-Request-Id": r.Header.Get("X-Request-Id")})
	}
	w.WriteHeader(code)
	fmt.Fprintln(w, code)
}

// call answers the status of a GET, 502 if there is none.
func (p *Player) call(ctx context.Context, url string, fields map[string]string) int {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return http.StatusBadGateway
	}
	for name, value := range fields {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	resp, err := p.out.Do(r)
	if err != nil {
		return http.StatusBadGateway
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return http.StatusBadGateway
	}
	return resp.StatusCode
}

// steer takes orders: /be a Conduct, /play an Order; each answers how many requests the service has got, or Outcomes by class.
func (p *Player) steer(w http.ResponseWriter, r *http.Request) {
	var out any
	var err error
	switch r.URL.Path {
	case "/be":
		c := &staged{}
		if err = json.NewDecoder(r.Body).Decode(&c.Conduct); err == nil {
			if c.Workers > 0 {
				c.workers = make(chan struct{}, c.Workers)
			}
			p.is.Store(c)
		}
		out = p.got.Load()
	case "/got":
		out = p.got.Load()
	case "/play":
		var o Order
		if err = json.NewDecoder(r.Body).Decode(&o); err == nil {
			out = p.play(o)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(out) // who asked may have ended
}

// play offers a load and returns when every request has its answer.
func (p *Player) play(o Order) map[string]*Outcome {
	if len(o.Classes) == 0 {
		o.Classes = []Class{{"", 1}}
	}
	var mu sync.Mutex
	got := map[string]*Outcome{}
	for _, c := range o.Classes {
		got[c.Name] = &Outcome{}
	}
	var all sync.WaitGroup
	begin := time.Now()
	for n := 0; ; n++ {
		due := time.Duration(float64(n) / o.Rate * float64(time.Second))
		if due >= o.Lead+o.For {
			break
		}
		if wait := due - time.Since(begin); wait > 0 {
			<-time.After(wait)
		}
		all.Go(func() {
			class := o.draw()
			ctx, cancel := context.WithTimeout(context.Background(), o.Patience)
			defer cancel()
			code := p.call(ctx, o.URL, map[string]string{"X-Class": class})
			if due < o.Lead {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			got[class].Offered++
			if code == http.StatusOK {
				got[class].Good++
			}
		})
	}
	all.Wait()
	return got
}

// draw picks a class by its share.
func (o *Order) draw() string {
	x := rand.Float64()
	for _, c := range o.Classes {
		if x -= c.Share; x < 0 {
			return c.Name
		}
	}
	return o.Classes[len(o.Classes)-1].Name
}

// Ask tells the player at a unix socket something and reads its answer.
func Ask(socket, what string, in, out any) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(json.NewEncoder(w).Encode(in)) }() // the request fails with it
	resp, err := client.Post("http://player/"+what, "application/json", r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body) // it is the error
		return fmt.Errorf("%s: %s %s", what, resp.Status, text)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
