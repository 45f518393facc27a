package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/bench/load"
)

// sidecarFeature is one thing that only the sidecars of a mesh can do: what a TrafficPolicy on the called service says with
// it and without it. Where nothing is said without it, balancing as it is by default is said, so that there is a policy both times.
type sidecarFeature struct {
	name          string
	with, without string // in spec
	policies      int    // this many AuthorizationPolicies are in force on the called service, the last allows the caller; or none
	cookies       bool   // clients send the cookie that they were given last
	through       bool   // the call goes through a program that calls on: with x-request-id, and without
}

var sidecarFeatures = []sidecarFeature{
	{name: "nothing: another number in the same field", with: `timeouts: {request: 30s}`, without: `timeouts: {request: 31s}`},
	{name: "class of each request", with: `priority: [{match: {headers: [{name: x-class, value: batch}]}, class: batch}, {class: critical}]`},
	{name: "deadline, which travels on", with: `timeouts: {request: 30s}`},
	{name: "deadline and class through a program", with: `timeouts: {request: 30s}`, without: `timeouts: {request: 30s}`, through: true},
	{name: "timeout of each attempt", with: `timeouts: {attempt: 10s}`},
	{name: "retries and their budget over hops (on unless said otherwise)", with: `retries: {}`, without: `retries: {attempts: 0}`},
	{name: "waits that are learned (on unless said otherwise)", with: `retries: {}`, without: `retries: {wait: {base: 25ms, maximum: 250ms}}`},
	{name: "hedging after 1 s", with: `hedging: {after: 1s}`},
	{name: "rate limit per caller", with: `rateLimits: [{name: callers, requests: 100000000, by: [{caller: true}]}]`},
	{name: "rate limit per caller, with response fields", with: `rateLimits: [{name: callers, requests: 100000000, by: [{caller: true}], headers: true}]`},
	{name: "adaptive limit", with: `concurrency: {least: 1000}`},
	{name: "adaptive limit, with a queue by tenants", with: `concurrency: {least: 1000, queue: 1s}`},
	{name: "bounds of what is under way (capacity)", with: `capacity: {connections: 10000, requests: 10000}`},
	{name: "breakers and fallback", with: `{breakers: {connections: 10000, pending: 10000, requests: 10000}, fallback: {name: known, port: 8080}}`},
	{name: "sessions by cookie, of clients that keep it", with: `session: {}`, cookies: true},
	{name: "sessions by cookie, a new one with each request", with: `session: {}`},
	{name: "ejection by latency and success rate", with: `ejection: {latency: {}, successRate: {}}`},
	{name: "a thousand authorization policies", policies: 1000},
	{name: "health checks of callers", with: `healthChecks: [{http: {path: /}, interval: 1s}]`},
}

// passage is the server of the mesh and, through is true, programs before it that call it: one hands x-request-id on, one
// does not.
const passage = `worker_processes 2; daemon off; pid %[1]s/%[3]s.pid; error_log /dev/null;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; upstream echo { server echo:8080; keepalive 256; }
server { listen 127.0.0.1:8080 backlog=4096; location / { proxy_pass http://echo; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host echo:8080; %[2]s } } }
`

// sidecarPairs is how often a feature is switched on and off in one round, while the same connections go on.
const sidecarPairs = 24

// sidecarPair is what proxies cost without and with a feature, one right after the other, as a share of what everything else
// costs that a request takes part in: the load generator and the servers do the same work both times, and become slower with
// the machine. rest is that, in µs of CPU per request.
type sidecarPair struct{ without, with, rest float64 }

// costOfSidecars measures each in one mesh. One load runs on the same connections while the feature is switched on and off again,
// in turns: on off off on, so that a machine that becomes slower or faster meanwhile does not count. Two loads one after the
// other would differ by tens of times what is looked for, since their connections fall on other loops.
func costOfSidecars(r *results) error {
	w, err := newWorld(r.options)
	if err != nil {
		return err
	}
	defer w.close()
	run, err := w.mesh(load.HTTP1)
	if err != nil {
		return err
	}
	data := filepath.Join(w.dir, "data")
	for name, more := range map[string]string{"known": "", "unknown": `proxy_set_header X-Request-Id ""; proxy_set_header Traceparent "";`} {
		conf := w.file(name+".conf", fmt.Sprintf(passage, w.dir, more, name))
		if _, err := w.start(w.options.tulle, "run", "--data-dir", data, "--service", name, "--port", "8080/http", "--wait-for", "echo", "--", "nginx", "-c", conf); err != nil {
			return err
		}
		if out, err := exec.Command(w.options.tulle, "run", "--data-dir", data, "--service", "probe", "--wait-for", name, "--", "true").CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
	}
	run.pids = w.proxies()
	r.switched = map[string][]sidecarPair{}
	for round := range r.options.rounds {
		for _, f := range sidecarFeatures {
			if !wanted(r.options.features, f.name) {
				continue
			}
			measure := w.switched
			if f.through {
				measure = w.detoured
			}
			pairs, err := measure(run, data, f)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			r.switched[f.name] = append(r.switched[f.name], pairs...)
			e := estimate(r.switched[f.name])
			say("round %d  sidecars %-34s %6.2f µs, without %6.2f µs, more %+.2f (%+.2f to %+.2f)", round+1, f.name, e.with, e.without, e.more, e.least, e.greatest)
		}
	}
	return nil
}

// pairs and window: what takes long to be stored is switched less often, and looked at for longer.
func (f sidecarFeature) pairs() time.Duration {
	if f.policies > 0 {
		return sidecarPairs / 3
	}
	return sidecarPairs
}

func (f sidecarFeature) window(o options) time.Duration { return o.duration * sidecarPairs / f.pairs() }

// window is a stretch of time in which nothing changed.
type window struct {
	on          bool
	from, until time.Time
	used        spent
}

// spent is CPU time: of the proxies, and of what else the bench has started.
type spent struct{ proxies, rest time.Duration }

func spentBy(proxies []int) (s spent, err error) {
	for _, p := range children(os.Getpid()) {
		d, err := cpuOf(p)
		switch {
		case slices.Contains(proxies, p) && err != nil:
			return s, err
		case slices.Contains(proxies, p):
			s.proxies += d
		default: // what has ended meanwhile was a command
			s.rest += d
		}
	}
	return s, nil
}

// add puts one half into a pair.
func (p *sidecarPair) add(on bool, used spent, requests float64) {
	share := float64(used.proxies) / float64(used.rest)
	if on {
		p.with = share
	} else {
		p.without = share
	}
	p.rest += used.rest.Seconds() * 1e6 / requests / 2
}

// switched answers what the proxies' CPU time per request is in pairs of windows on the same connections.
func (w *world) switched(run *running, data string, f sidecarFeature) ([]sidecarPair, error) {
	p := plan(w.options, load.HTTP1, twoHops, run, 32)
	p.Every, p.Cookies = 5*time.Millisecond, f.cookies
	if f.policies > 0 {
		p.For = f.pairs()*(5*f.window(w.options)/2+15*time.Second) + 2*time.Second
	} else {
		p.For = f.pairs()*(5*f.window(w.options)/2+time.Second/2) + 2*time.Second
	}
	var done load.Result
	var failed error
	var running sync.WaitGroup
	running.Go(func() { done, failed = generate(run, p) })
	windows, err := w.turns(run, data, f, time.Now().Add(p.For))
	running.Wait()
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	var pairs []sidecarPair
	for i := 0; i+1 < len(windows); i += 2 {
		var pair sidecarPair
		for _, x := range windows[i : i+2] {
			a, okA := done.DoneAt(x.from)
			b, okB := done.DoneAt(x.until)
			if !okA || !okB || b-a < 100 {
				return nil, fmt.Errorf("%.0f requests were counted from %s to %s", b-a, x.from, x.until)
			}
			pair.add(x.on, x.used, b-a)
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

// turns switches the feature on and off while the load runs, and answers the windows in between, two and two one of each.
// It ends early where the load would end first.
func (w *world) turns(run *running, data string, f sidecarFeature, end time.Time) (windows []window, err error) {
	each := f.window(w.options)
	if err := w.turn(data, f, false); err != nil {
		return nil, err
	}
	time.Sleep(each) // warm
	for i := range 2 * f.pairs() {
		x := window{on: i%4 == 1 || i%4 == 2}
		if i%2 == 1 { // off, on on, off off, on
			if err := w.turn(data, f, x.on); err != nil {
				return nil, err
			}
			time.Sleep(each / 4) // connections that it wants are made
		}
		if time.Until(end) < 2*each {
			break
		}
		before, err := spentBy(run.pids)
		if err != nil {
			return nil, err
		}
		x.from = time.Now()
		time.Sleep(each)
		after, err := spentBy(run.pids)
		if err != nil {
			return nil, err
		}
		x.until, x.used = time.Now(), spent{after.proxies - before.proxies, after.rest - before.rest}
		windows = append(windows, x)
	}
	return windows[:len(windows)&^1], nil
}

// turn switches a feature on or off and waits until every proxy knows.
func (w *world) turn(data string, f sidecarFeature, on bool) error {
	spec := f.without
	if on {
		spec = f.with
	}
	if spec == "" {
		spec = "balancing: {policy: LeastRequest}"
	}
	if err := w.apply(data, "apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: feature}\nspec: "+flow(spec)+"\n"); err != nil {
		return err
	}
	if f.policies > 0 {
		if err := w.authorize(data, f.policies, on); err != nil {
			return err
		}
	}
	if out, err := exec.Command(w.options.tulle, "wait", "--data-dir", data, "--timeout", "20s").CombinedOutput(); err != nil {
		return fmt.Errorf("wait: %w: %s", err, out)
	}
	return nil
}

// detoured measures what is a matter of which program a request goes through: loads in turns.
func (w *world) detoured(run *running, data string, f sidecarFeature) (pairs []sidecarPair, err error) {
	if err := w.turn(data, f, true); err != nil {
		return nil, err
	}
	for i := range sidecarPairs {
		var pair sidecarPair
		for j := range 2 {
			on := (i+j)%2 == 1
			host := map[bool]string{true: "known:8080", false: "unknown:8080"}[on]
			p := plan(w.options, load.HTTP1, twoHops, run, 32)
			p.Address, p.Host = host, host
			p.Every, p.For = 5*time.Millisecond, 3*p.For
			x, done, err := w.whole(run, p)
			if err != nil {
				return nil, err
			}
			pair.add(on, x, done)
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

// whole is one load whose second half is looked at: what the load generator has used is gone when it has ended.
func (w *world) whole(run *running, p load.Plan) (spent, float64, error) {
	var done load.Result
	var failed error
	var running sync.WaitGroup
	running.Go(func() { done, failed = generate(run, p) })
	time.Sleep(p.For / 2) // the load generator has begun
	from := time.Now()
	before, err := spentBy(run.pids)
	time.Sleep(p.For / 3)
	after, err2 := spentBy(run.pids)
	until := time.Now()
	running.Wait()
	if err := errors.Join(err, err2, failed); err != nil {
		return spent{}, 0, err
	}
	a, okA := done.DoneAt(from)
	b, okB := done.DoneAt(until)
	if !okA || !okB || b-a < 100 {
		return spent{}, 0, fmt.Errorf("%.0f requests were counted from %s to %s", b-a, from, until)
	}
	return spent{after.proxies - before.proxies, after.rest - before.rest}, b - a, nil
}

// estimated is what pairs say: medians, and between which two differences of pairs the true median lies in 95 of 100 cases.
type estimated struct{ with, without, more, least, greatest float64 }

// estimate needs no law of the noise: how many of n differences lie below their true median is binomial with one half.
func estimate(pairs []sidecarPair) estimated {
	var e estimated
	var with, without, more, rest []float64
	for _, p := range pairs {
		rest = append(rest, p.rest)
	}
	each := median(rest)
	for _, p := range pairs {
		with, without, more = append(with, each*p.with), append(without, each*p.without), append(more, each*(p.with-p.without))
	}
	slices.Sort(more)
	n := len(more)
	k, below, next := 0, 0.0, math.Pow(0.5, float64(n))
	for ; k < n/2; k++ { // P(fewer than k+1 lie below)
		if below += next; below > 0.025 {
			break
		}
		next *= float64(n-k) / float64(k+1)
	}
	k = max(k-1, 0)
	e.with, e.without, e.more, e.least, e.greatest = median(with), median(without), median(more), more[k], more[n-1-k]
	return e
}

// authorize puts policies on the called service in force, or takes them away: as many services as there are policies may each
// call a path, and whoever measures may call what it calls, by the one that comes first and goes last.
func (w *world) authorize(data string, n int, on bool) error {
	const atOnce = 100 // so many fit into one file
	var files []string
	for i := range n {
		who, path := fmt.Sprintf("service%d", i), fmt.Sprintf("/v%d/items/{id}", i)
		if i == 0 {
			who, path = "*", "/*"
		}
		if i <= 1 || i%atOnce == 0 {
			files = append(files, "")
		}
		files[len(files)-1] += fmt.Sprintf("---\napiVersion: tulle.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p%d}\nspec: {targetRefs: [{group: \"\", kind: Service, name: echo}], rules: [{from: [{serviceAccounts: [%q]}], to: [{methods: [GET, POST], paths: [%q]}]}]}\n", i, who, path)
	}
	if !on {
		slices.Reverse(files)
	}
	for _, f := range files {
		if on {
			if err := w.apply(data, f); err != nil {
				return err
			}
			continue
		}
		c := exec.Command(w.options.tulle, "delete", "--data-dir", data, "-f", "-")
		c.Stdin = strings.NewReader(f)
		_ = c.Run() // the first time there are none
	}
	return nil
}

// flow answers a spec with its target, on one line.
func flow(spec string) string {
	if spec[0] == '{' {
		spec = spec[1 : len(spec)-1]
	}
	return `{targetRefs: [{group: "", kind: Service, name: echo}], ` + spec + "}"
}

const sidecarHeading = "\n## What each feature of the sidecars adds\n"

// sidecarTable says what each adds to the proxies of a request.
func (r *results) sidecarTable(b *bytes.Buffer) {
	fmt.Fprintf(b, "%s\nTwo workloads, HTTP/1.1 over mTLS, 32 connections; CPU of both proxies, measured on %s. While one load goes on, on the same\nconnections, a TrafficPolicy of the called service switches the feature on, and again off, in turns (on off off on), for %s each time. Costs\nare taken as shares of what the load generator and the server use meanwhile, since the machine becomes slower and faster by half, and told in µs by the\nmedian of that. More is the median of the differences of neighbours, from and to the bounds between which the true one lies in 95 of 100 cases. Through a program:\nthree sidecars, and a program between them that hands x-request-id on, or does not; loads in turns. The goal is at most %.1f µs more.\n\n| feature | pairs | without: CPU µs per request | with | more | from | to | |\n|---|---:|---:|---:|---:|---:|---:|---|\n",
		sidecarHeading, r.begun.Format("2006-01-02"), r.options.duration, featureGoal)
	for _, f := range sidecarFeatures {
		pairs := r.switched[f.name]
		if len(pairs) == 0 { // not asked for this time
			b.WriteString(r.oldRow(f.name))
			continue
		}
		e := estimate(pairs)
		verdict := "reached"
		switch {
		case e.least > featureGoal:
			verdict = "**missed**"
		case e.more > featureGoal:
			verdict = "not sure, rather missed"
		case e.greatest > featureGoal:
			verdict = "not sure, rather reached"
		}
		fmt.Fprintf(b, "| %s | %d | %.2f | %.2f | %+.2f | %+.2f | %+.2f | %s |\n", f.name, len(pairs), e.without, e.with, e.more, e.least, e.greatest, verdict)
	}
}
