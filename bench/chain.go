package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/bench/play"
)

// chainLength is how many services call each other in a row.
const chainLength = 6

// chainRate is how many requests a second are offered to the first.
const chainRate = 200

// chainPhases are the shares of the calls to the last that fail, one phase after the other.
var chainPhases = []float64{0.5, 1}

// chainRow is what came of one subject.
type chainRow struct {
	name   string
	phases []chainPhase
}

// chainPhase is counted, not timed.
type chainPhase struct {
	offered, good, last int // what was offered to the first, what was answered 200, and what the last got
}

// chains measures how often the last of a chain is called for each request to the first, when every hop tries twice more.
func chains(r *results) error {
	r.chain = nil
	type chain struct {
		name  string
		start func(w *world) (*troupe, error)
	}
	list := []chain{{"Tulle, its defaults", func(w *world) (*troupe, error) { return chainOfTulle(w, "") }},
		{"Tulle, a budget that bounds nothing", func(w *world) (*troupe, error) {
			return chainOfTulle(w, ", retryBudget: {percent: 100, least: 1000}")
		}}}
	if r.options.envoy != "" {
		for _, e := range []struct{ name, thresholds string }{
			{"Envoy, its defaults (`max_retries` 3)", ""},
			{"Envoy, `retry_budget` 20 %", "circuit_breakers: {thresholds: [{retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 3}}]}"},
			{"Envoy, bounds raised as Istio does", "circuit_breakers: {thresholds: [{max_connections: 4294967295, max_pending_requests: 4294967295, max_requests: 4294967295, max_retries: 4294967295}]}"},
		} {
			list = append(list, chain{e.name, func(w *world) (*troupe, error) { return chainOfEnvoy(w, e.thresholds) }})
		}
	}
	for _, c := range list {
		if !wanted(r.options.subjects, c.name) {
			continue
		}
		row := chainRow{name: c.name}
		if err := r.options.staged(c.start, func(t *troupe) (err error) {
			row.phases, err = t.fail(10 * r.options.duration)
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		r.chain = append(r.chain, row)
		say("chain  %-38s %+v", c.name, row.phases)
	}
	return nil
}

// fail plays the phases.
func (t *troupe) fail(each time.Duration) ([]chainPhase, error) {
	last := len(t.services) - 1
	order := play.Order{URL: t.url, Rate: chainRate, For: each, Patience: 20 * time.Second}
	var out []chainPhase
	for _, share := range chainPhases {
		before, err := t.be(last, play.Conduct{Fail: share})
		if err != nil {
			return nil, err
		}
		got, err := t.play(order)
		if err != nil {
			return nil, err
		}
		after, err := t.be(last, play.Conduct{})
		if err != nil {
			return nil, err
		}
		out = append(out, chainPhase{got[""].Offered, got[""].Good, after - before})
	}
	return out, nil
}

// chainOfTulle is six workloads with their sidecars, and a seventh that calls the first.
func chainOfTulle(w *world, more string) (*troupe, error) {
	t := &troupe{w: w, url: "http://s1:8080/"}
	config := "apiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec:\n  defaults: {retries: {attempts: 2, statuses: [503]}" + more + "}\n"
	if err := t.mesh(config); err != nil {
		return nil, err
	}
	for i := range chainLength {
		if err := t.service(fmt.Sprint("s", i+1)); err != nil {
			return nil, err
		}
		if i+1 < chainLength {
			t.next = append(t.next, fmt.Sprintf("http://s%d:8080/", i+2))
		}
	}
	return t, t.client(fmt.Sprint("s", chainLength))
}

// chainOfEnvoy is six programs, each called through a listener and a cluster of its own; that they are in one process changes
// nothing about them.
func chainOfEnvoy(w *world, thresholds string) (*troupe, error) {
	t := &troupe{w: w}
	var listeners, clusters strings.Builder
	for i := range chainLength {
		address, err := t.program(fmt.Sprint("s", i+1))
		if err != nil {
			return nil, err
		}
		front := freePort()
		if i == 0 {
			t.url = "http://" + front + "/"
		} else {
			t.next = append(t.next, "http://"+front+"/")
		}
		listeners.WriteString(envoyListener(front, fmt.Sprint("s", i+1), `, retry_policy: {retry_on: "5xx", num_retries: 2}`, ""))
		clusters.WriteString(envoyBack(address, fmt.Sprint("s", i+1), thresholds))
	}
	return t, t.envoy(listeners.String(), clusters.String())
}

const chainHeading = "\n## How often the last of a chain is called\n"

// chainGoal is the most that may reach the last for each request that was offered.
const chainGoal = 1.2

func (r *results) chainTable(b *bytes.Buffer) {
	n := 0
	for _, row := range r.chain {
		n = max(n, row.phases[0].offered)
	}
	fmt.Fprintf(b, "%s\n%d services call each other in a row, each through its proxy, and every hop may try twice more when it is answered 503. %d requests, %d a second,\nare offered to the first while half of the calls to the last fail, and as many while all of them do; counted on %s. The factor is what the last got\nfor each request that was offered; the goal is at most %.1f. Without retries every second request is answered well. Envoy gives up after 15 s, its\ndefault; where the factor is large the machine is full, and it would be larger on a larger one.\n\n| | half fail: factor | answered well | all fail: factor | |\n|---|---:|---:|---:|---|\n",
		chainHeading, chainLength, n, chainRate, r.begun.Format("2006-01-02"), chainGoal)
	for _, row := range r.chain {
		half, all := row.phases[0], row.phases[1]
		verdict := ""
		if row.name == r.chain[0].name {
			verdict = "reached"
			if max(half.factor(), all.factor()) >= chainGoal+0.005 { // as it is told, with two digits
				verdict = "**missed**"
			}
		}
		fmt.Fprintf(b, "| %s | %.2f | %.1f %% | %.2f | %s |\n", row.name, half.factor(), 100*float64(half.good)/float64(half.offered), all.factor(), verdict)
	}
}

func (p chainPhase) factor() float64 { return float64(p.last) / float64(p.offered) }
