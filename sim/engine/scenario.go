package engine

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// Scenarios are small fixed runs, for looking at every byte of them: what happens when the connection breaks there.
func Scenarios() []string {
	var names []string
	for name := range scenarios {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var scenarios = map[string]func(r *run){
	"mesh-http1":    func(r *run) { r.short(false, false) },
	"mesh-http2":    func(r *run) { r.short(true, false) },
	"mesh-tcp":      func(r *run) { r.brief(false) },
	"gateway-http1": func(r *run) { r.short(false, true) },
	"gateway-http2": func(r *run) { r.short(true, true) },
	"gateway-tcp":   func(r *run) { r.brief(true) },
}

// short is one client with a PUT, a POST with trailers both ways, and a tunnel.
func (r *run) short(two, gateway bool) {
	c := &client{run: r, name: strings.ToLower("short"), rnd: rand.New(rand.NewPCG(r.seed, 8)), two: two, to: r.vip}
	if gateway {
		c.to = at("10.0.0.2:80")
	}
	c.list = []*request{
		{method: "PUT", body: 40, status: 200, answer: 30, breaks: -1},
		{method: "POST", body: 30, chunked: true, trailers: true, status: 200, answer: 40, streamed: true, answerTrails: true, breaks: -1},
		{kind: tunnel, method: "GET", body: 20, status: 200, answer: 20, breaks: -1},
	}
	for i, q := range c.list {
		q.id = i
	}
	r.requests = c.list
	r.callers = append(r.callers, c)
	r.clients.Post(c.start)
}

// brief is one TCP client.
func (r *run) brief(gateway bool) {
	t := r.newTalker("brief", rand.New(rand.NewPCG(r.seed, 8)), gateway)
	t.r.body, t.s.say, t.r.answer, t.s.want, t.r.breaks = 50, 50, 60, 60, -1
	r.requests = append(r.requests, t.r)
	r.callers = append(r.callers, t)
	r.clients.Post(t.start)
}
