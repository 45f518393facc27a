package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/bench/play"
)

// What the service of the overload can do: four at a time, ten milliseconds each.
const (
	overloadWorkers  = 4
	overloadWork     = 10 * time.Millisecond
	overloadCapacity = float64(overloadWorkers) * float64(time.Second) / float64(overloadWork)
)

// overloadSteps are loads, in capacities. The first is no load to speak of.
var overloadSteps = []float64{0.4, 0.8, 1, 2, 5}

// overloadMix is the same in each step: at five capacities the critical ones are 0.3 of one.
var overloadMix = []play.Class{{Name: "critical", Share: 0.06}, {Name: "default", Share: 0.62}, {Name: "batch", Share: 0.32}}

// overloadRow is what came of one subject.
type overloadRow struct {
	name  string
	each  time.Duration
	steps []map[string]play.Outcome
}

// overloads measures how much is answered in time when more is offered than can be.
func overloads(r *results) error {
	r.overload = nil
	type way struct {
		name  string
		start func(w *world) (*troupe, error)
	}
	list := []way{{"Tulle, limits and classes", func(w *world) (*troupe, error) { return overloadOfTulle(w, "concurrency: {}") }},
		{"Tulle, a queue of 50 ms too", func(w *world) (*troupe, error) { return overloadOfTulle(w, "concurrency: {queue: 50ms}") }},
		{"no proxy", overloadBare}}
	if r.options.envoy != "" {
		list = append(list, way{"Envoy, `adaptive_concurrency`", func(w *world) (*troupe, error) { return overloadOfEnvoy(w, overloadFilter) }},
			way{"Envoy, its defaults", func(w *world) (*troupe, error) { return overloadOfEnvoy(w, "") }})
	}
	for _, c := range list {
		if !wanted(r.options.subjects, c.name) {
			continue
		}
		row := overloadRow{name: c.name, each: 4 * r.options.duration}
		if err := r.options.staged(c.start, func(t *troupe) (err error) {
			row.steps, err = t.overload(row.each)
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		r.overload = append(r.overload, row)
		say("overload  %-32s goodput %.0f/s of %.0f/s, critical %.1f %% of %.1f %%", c.name, row.goodput(len(row.steps)-1), row.peak(), 100*row.success(len(row.steps)-1, "critical"), 100*row.success(0, "critical"))
	}
	return nil
}

// overload plays the steps. Each begins with new workers, so that nobody waits for what the step before has left.
func (t *troupe) overload(each time.Duration) (out []map[string]play.Outcome, err error) {
	for _, s := range overloadSteps {
		if _, err := t.be(0, play.Conduct{Work: overloadWork, Workers: overloadWorkers}); err != nil {
			return nil, err
		}
		got, err := t.play(play.Order{URL: t.url, Rate: s * overloadCapacity, Lead: each / 4, For: each, Patience: time.Second, Classes: overloadMix})
		if err != nil {
			return nil, err
		}
		out = append(out, got)
	}
	return out, nil
}

func overloadOfTulle(w *world, limits string) (*troupe, error) {
	t := &troupe{w: w, url: "http://s:8080/"}
	if err := t.mesh(fmt.Sprintf(`apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: s}
spec:
  targetRefs: [{group: "", kind: Service, name: s}]
  %s
  priority:
  - {match: {headers: [{name: x-class, value: critical}]}, class: critical}
  - {match: {headers: [{name: x-class, value: batch}]}, class: batch}
`, limits)); err != nil {
		return nil, err
	}
	if err := t.service("s"); err != nil {
		return nil, err
	}
	return t, t.client("s")
}

const overloadFilter = `          - {name: envoy.filters.http.adaptive_concurrency, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency, gradient_controller_config: {sample_aggregate_percentile: {value: 90}, concurrency_limit_params: {concurrency_update_interval: 0.1s}, min_rtt_calc_params: {jitter: {value: 10}, interval: 60s, request_count: 50}}}}
`

func overloadOfEnvoy(w *world, filter string) (*troupe, error) {
	t := &troupe{w: w}
	address, err := t.program("s")
	if err != nil {
		return nil, err
	}
	front := freePort()
	t.url = "http://" + front + "/"
	return t, t.envoy(envoyListener(front, "s", "", filter), envoyBack(address, "s", ""))
}

func overloadBare(w *world) (*troupe, error) {
	t := &troupe{w: w}
	address, err := t.program("s")
	if err != nil {
		return nil, err
	}
	t.url = "http://" + address + "/"
	return t, t.caller()
}

// goodput is what was answered in time, per second.
func (row *overloadRow) goodput(step int) float64 {
	n := 0
	for _, o := range row.steps[step] {
		n += o.Good
	}
	return float64(n) / row.each.Seconds()
}

func (row *overloadRow) peak() (most float64) {
	for i := range row.steps {
		most = max(most, row.goodput(i))
	}
	return most
}

func (row *overloadRow) success(step int, class string) float64 {
	o := row.steps[step][class]
	return float64(o.Good) / float64(max(o.Offered, 1))
}

const overloadHeading = "\n## More than a service can do\n"

// Goals: goodput at the most load, of its peak, and how much less of what is critical may be answered then.
const (
	overloadGoal = 0.9
	criticalGoal = 0.05
)

func (r *results) overloadTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "%s\nA service that works on %d requests at a time, %s each, first come, first served, and that does not notice that a client has gone; clients go after\n1 s. Offered at a constant rate, %.0f %% critical, %.0f %% default and %.0f %% batch; %s for each load, counted on %s. Goodput is what was answered\nin time. The goals: under %.0f times the load at least %.0f %% of the peak, and what is critical within %.0f %% of what it is without load.\n\n|",
		overloadHeading, overloadWorkers, overloadWork, 100*overloadMix[0].Share, 100*overloadMix[1].Share, 100*overloadMix[2].Share, r.overload[0].each, r.begun.Format("2006-01-02"), overloadSteps[len(overloadSteps)-1], 100*overloadGoal, 100*criticalGoal)
	last := len(overloadSteps) - 1
	for _, s := range overloadSteps {
		fmt.Fprintf(b, " | %g×: goodput/s", s)
	}
	fmt.Fprintf(b, " | of its peak | critical, %g× | at %g× | default | batch | |\n|---|", overloadSteps[0], overloadSteps[last])
	for range len(overloadSteps) + 5 {
		b.WriteString("---:|")
	}
	b.WriteString("---|\n")
	for i := range r.overload {
		row := &r.overload[i]
		fmt.Fprintf(b, "| %s |", row.name)
		for s := range overloadSteps {
			fmt.Fprintf(b, " %.0f |", row.goodput(s))
		}
		of, before, then := row.goodput(last)/row.peak(), row.success(0, "critical"), row.success(last, "critical")
		verdict := ""
		if i == 0 {
			verdict = "reached"
			if of < overloadGoal || then < before-criticalGoal {
				verdict = "**missed**"
			}
		}
		fmt.Fprintf(b, " %.1f %% | %.1f %% | %.1f %% | %.1f %% | %.1f %% | %s |\n", 100*of, 100*before, 100*then, 100*row.success(last, "default"), 100*row.success(last, "batch"), verdict)
	}
}
