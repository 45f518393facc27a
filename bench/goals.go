package main

import (
	"bytes"
	"fmt"

	"github.com/tulle-mesh/tulle/bench/load"
)

// goal is a number that the project has set itself, and what this run says of it.
type goal struct {
	what   string
	most   float64 // the goal
	least  bool    // the goal is a least, not a most
	digits int
	value  float64
	ok     bool // there is a value
}

func (g *goal) reached() bool {
	if g.least {
		return g.value >= g.most
	}
	return g.value <= g.most
}

// goalTable compares the run with the goals. What was not measured is left out.
func (r *results) goalTable(b *bytes.Buffer) {
	var list []goal
	for _, g := range append(append(r.costGoals(), r.otherGoals()...), r.memoryGoals()...) {
		if g.ok {
			list = append(list, g)
		}
	}
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Goals\n\n| | goal | this run | |\n|---|---:|---:|---|\n")
	for _, g := range list {
		sign, verdict := "≤", "reached"
		if g.least {
			sign = "≥"
		}
		if !g.reached() {
			verdict = "**missed**"
		}
		fmt.Fprintf(b, "| %s | %s %.*f | %.*f | %s |\n", g.what, sign, g.digits, g.most, g.digits, g.value, verdict)
	}
}

// costGoals are ratios of CPU time per request.
func (r *results) costGoals() []goal {
	var out []goal
	add := func(t topology, k load.Kind, to string, most float64, numbers ...int) {
		for _, c := range numbers {
			g := goal{what: fmt.Sprintf("%s, %s, %d connections: CPU × %s", t, k, c, to), most: most, digits: 2}
			mine, of := r.cost[key{t, k, c, "Tulle"}], r.cost[key{t, k, c, to}]
			if mine != nil && of != nil {
				g.value, g.ok = median(mine)/median(of), true
			}
			out = append(out, g)
		}
	}
	all := r.options.connections
	add(plain, load.HTTP1, "HAProxy", 1.05, all...)
	add(plain, load.HTTP1, "Envoy", 0.5, all...)
	for _, k := range []load.Kind{load.HTTP2, load.GRPCUnary, load.GRPCStream} {
		add(plain, k, "HAProxy", 1, all...)
		add(plain, k, "Envoy", 0.5, all...)
	}
	add(twoHops, load.HTTP1, "nginx", 1, 1)
	add(twoHops, load.HTTP1, "nginx", 0.6, 32, 128)
	add(twoHops, load.HTTP1, "Envoy", 0.35, 1, 32, 128)
	return out
}

// otherGoals are throughput, latency and handshakes.
func (r *results) otherGoals() []goal {
	var out []goal
	for _, c := range r.options.connections {
		g := goal{what: fmt.Sprintf("plain, %s, %d connections: throughput × HAProxy", load.TCP, c), most: 0.95, least: true, digits: 2}
		mine, of := r.throughput[key{plain, load.TCP, c, "Tulle"}], r.throughput[key{plain, load.TCP, c, "HAProxy"}]
		if mine != nil && of != nil {
			g.value, g.ok = median(mine)/median(of), true
		}
		out = append(out, g)
	}
	for _, k := range kinds {
		direct := r.p50[key{plain, k, 1, "no proxy"}]
		mine, of := r.p50[key{plain, k, 1, "Tulle"}], r.p50[key{plain, k, 1, "HAProxy"}]
		if mine != nil && of != nil && direct != nil {
			added := (median(mine) - median(direct)) / (median(of) - median(direct))
			out = append(out, goal{what: fmt.Sprintf("plain, %s, one connection: added p50 × HAProxy's", k), most: 1, digits: 2, value: added, ok: true})
		}
	}
	mine, of := r.shakes["X25519"]["Tulle"], r.shakes["X25519"]["nginx"]
	if mine != nil && of != nil {
		out = append(out, goal{what: "new mTLS connections per CPU second × nginx", most: 0.7, least: true, digits: 2, value: median(mine) / median(of), ok: true})
	}
	return out
}

// memoryGoals are absolute.
func (r *results) memoryGoals() []goal {
	var out []goal
	for _, m := range r.memory {
		if m.subject != "Tulle" {
			continue
		}
		most := 3000.0
		if m.topology == oneHop {
			most = 20000
		}
		out = append(out, goal{what: fmt.Sprintf("%s: bytes per idle connection", m.topology), most: most, value: m.each, ok: true})
	}
	anon, pss := goal{what: "idle sidecar's proxy, six on the machine: RssAnon MB", most: 12, digits: 1}, goal{what: "idle sidecar's proxy, six on the machine: PSS MB", most: 20, digits: 1}
	for _, s := range r.sidecar { // the largest
		anon.value, anon.ok = max(anon.value, s[0].anon/1e6), true
		pss.value, pss.ok = max(pss.value, s[0].pss/1e6), true
	}
	return append(out, anon, pss)
}
