// Command bench measures what a proxy costs: CPU time per request of one hop and of the two-proxy mTLS path, beside
// HAProxy, nginx and httputil.ReverseProxy in the same run, and what an idle sidecar keeps in memory. It prints tables
// of ratios: absolute times differ from machine to machine, ratios of one run do not. Needs haproxy, nginx and wrk;
// run it with `make bench`.
//
// Every subject gets the same load (wrk, keep-alive, a response of 100 bytes) and the same backend (nginx), one
// after the other, the whole round repeated; the median of the rounds counts. Start reading at main.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// options of a run.
type options struct {
	tulle       string
	duration    time.Duration
	connections []int
	rounds      int
	only        string
	dir         string
}

func main() {
	var o options
	conns := ""
	flag.StringVar(&o.tulle, "tulle", "bin/tulle", "the binary to measure")
	flag.DurationVar(&o.duration, "for", 4*time.Second, "how long each measurement takes")
	flag.IntVar(&o.rounds, "rounds", 3, "how often everything is measured")
	flag.StringVar(&conns, "connections", "1,32,128", "keep-alive connections of the load generator")
	flag.StringVar(&o.only, "only", "", "hop, mtls or memory")
	reverse := flag.String("reverseproxy", "", "be httputil.ReverseProxy: LISTEN,TARGET (used by the bench itself)")
	flag.Parse()
	if *reverse != "" {
		listen, target, _ := strings.Cut(*reverse, ",")
		fail(reverseProxy(listen, target))
	}
	for c := range strings.SplitSeq(conns, ",") {
		n := 0
		if _, err := fmt.Sscan(c, &n); err != nil || n < 1 {
			fail(fmt.Errorf("-connections %q: not a list of numbers", conns))
		}
		o.connections = append(o.connections, n)
	}
	fail(run(o, os.Stdout))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options, out io.Writer) error {
	for _, p := range []string{"haproxy", "nginx", "wrk", o.tulle} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is missing: install the packages haproxy, nginx-light and wrk, and build with `make build`", p)
		}
	}
	dir, err := os.MkdirTemp("", "tulle-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.dir = dir
	if o.only == "" || o.only == "hop" {
		if err := table(o, out, "One hop: CPU of the proxy per request", "haproxy http", hopSubjects()); err != nil {
			return err
		}
	}
	if o.only == "" || o.only == "mtls" {
		if err := table(o, out, "Two proxies with mTLS between them: CPU of both per request", "nginx + nginx", mtlsSubjects()); err != nil {
			return err
		}
	}
	if o.only == "" || o.only == "memory" {
		return memory(o, out)
	}
	return nil
}

// subject is one thing to measure. start answers what is running; its load goes to url.
type subject struct {
	name  string
	start func(o options, w *world) (running, error)
}

// running is a started subject.
type running struct {
	url  string
	pids []int // whose CPU time counts
	// wrk, if set, starts the load generator another way, for example inside a mesh.
	wrk func(args ...string) *exec.Cmd
}

// table measures subjects and prints microseconds per request and the ratio to the one called base.
func table(o options, out io.Writer, title, base string, subjects []subject) error {
	cost := map[string]map[int][]float64{}
	for round := range o.rounds {
		for _, s := range subjects {
			if err := measureSubject(o, s, round, cost); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	fmt.Fprintf(out, "\n### %s\n\n|", title)
	for _, c := range o.connections {
		fmt.Fprintf(out, " | %d conn. µs | ×", c)
	}
	fmt.Fprintf(out, " |\n|---%s|\n", strings.Repeat("|---:|---:", len(o.connections)))
	for _, s := range subjects {
		fmt.Fprintf(out, "| %s", s.name)
		for _, c := range o.connections {
			fmt.Fprintf(out, " | %.1f | %.2f", median(cost[s.name][c]), median(cost[s.name][c])/median(cost[base][c]))
		}
		fmt.Fprintln(out, " |")
	}
	fmt.Fprintf(out, "\n× is the ratio to %s. %d rounds of %s each, median.\n", base, o.rounds, o.duration)
	return nil
}

func measureSubject(o options, s subject, round int, cost map[string]map[int][]float64) error {
	w, err := newWorld(o)
	if err != nil {
		return err
	}
	defer w.close()
	r, err := s.start(o, w)
	if err != nil {
		return err
	}
	if cost[s.name] == nil {
		cost[s.name] = map[int][]float64{}
	}
	if _, err := load(o, r, 8, time.Second); err != nil { // warm-up
		return err
	}
	for _, c := range o.connections {
		before, err := cpu(r.pids)
		if err != nil {
			return err
		}
		requests, err := load(o, r, c, o.duration)
		if err != nil {
			return err
		}
		after, err := cpu(r.pids)
		if err != nil {
			return err
		}
		us := (after - before).Seconds() * 1e6 / float64(requests)
		cost[s.name][c] = append(cost[s.name][c], us)
		fmt.Fprintf(os.Stderr, "round %d  %-28s %4d connections  %8d requests  %6.1f µs\n", round+1, s.name, c, requests, us)
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
