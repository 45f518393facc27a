package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/tulle-mesh/tulle/bench/load"
)

// topology is what lies between the client and the server.
type topology string

const (
	plain   topology = "plain"          // client → proxy → server, in the clear
	oneHop  topology = "mTLS one hop"   // client → mTLS → proxy → server
	twoHops topology = "two-proxy mTLS" // client → proxy → mTLS → proxy → server
)

var (
	topologies = []topology{plain, oneHop, twoHops}
	kinds      = []load.Kind{load.HTTP1, load.HTTP2, load.GRPCUnary, load.GRPCStream, load.TCP, load.Connects}
)

// subject is one thing to measure.
type subject struct {
	name string
	// start starts it for a kind of load in a topology, in front of backend, and answers how to reach it; nil if it
	// cannot serve that.
	start func(w *world, k load.Kind, t topology, backend string) (*running, error)
}

// running is a started subject.
type running struct {
	address    string
	serverName string // of its certificate, where the client speaks TLS
	pids       []int  // whose CPU time and memory count
	// inside runs the load generator another way, for example inside a mesh; nil: on the machine.
	inside func(args ...string) ([]byte, error)
	host   string // authority, if it matters
}

// base is the subject that ratios are taken to.
func base(t topology) string {
	if t == twoHops {
		return "nginx"
	}
	return "HAProxy"
}

func allSubjects(o options) []subject {
	all := []subject{{"Tulle", startTulle}, {"HAProxy", startHAProxy}, {"nginx", startNginx}, {"Envoy", startEnvoy}, {"Go ReverseProxy", startReverse}}
	return slices.DeleteFunc(all, func(s subject) bool {
		return !wanted(o.subjects, s.name) || s.name == "Envoy" && o.envoy == ""
	})
}

// streams is how many requests are under way at once on a connection that carries several.
func streams(k load.Kind) int {
	switch k {
	case load.HTTP2, load.GRPCUnary, load.GRPCStream:
		return 8
	}
	return 1
}

// tls reports whether the client speaks TLS itself. New connections through two proxies start plain: what is new
// there is the client's connection.
func (t topology) tls() bool { return t == oneHop }

// plan is the load of one cell.
func plan(o options, k load.Kind, t topology, r *running, connections int) load.Plan {
	p := load.Plan{Kind: k, Address: r.address, Host: "bench", Connections: connections, Streams: streams(k), For: o.duration, ServerName: r.serverName}
	if r.host != "" {
		p.Host = r.host
	}
	if t.tls() {
		p.CA, p.Certificate, p.Key = o.dir+"/ca.pem", o.dir+"/leaf.pem", o.dir+"/leaf.key"
	}
	return p
}

// key is one cell of one subject.
type key struct {
	topology    topology
	kind        load.Kind
	connections int
	subject     string
}

// with starts a backend and a subject, and calls f; everything ends when it returns. ok is false where the subject
// does not serve that.
func with(o options, s subject, k load.Kind, t topology, f func(w *world, r *running) error) (ok bool, err error) {
	w, err := newWorld(o)
	if err != nil {
		return false, err
	}
	defer w.close()
	backend, err := w.backend(k)
	if err != nil {
		return false, err
	}
	r, err := s.start(w, k, t, backend)
	if err != nil || r == nil {
		return false, err
	}
	if r.inside == nil {
		if err := waitFor(r.address); err != nil {
			return false, err
		}
	}
	return true, f(w, r)
}

// costs measures CPU time per request and throughput, in a closed loop.
func costs(r *results) error {
	o := r.options
	r.cost, r.throughput = map[key][]float64{}, map[key][]float64{}
	for round := range o.rounds {
		for _, t := range topologies {
			for _, k := range kinds {
				if !wanted(o.topologies, string(t)) || !wanted(o.kinds, string(k)) {
					continue
				}
				for _, s := range allSubjects(o) {
					if err := r.cell(round, s, k, t); err != nil {
						return fmt.Errorf("%s, %s, %s: %w", s.name, k, t, err)
					}
				}
			}
		}
	}
	return nil
}

// numbers answers the numbers of connections of one kind of load in one topology. Two proxies with HTTP/1.1 have one more,
// because there is a goal for it.
func (o *options) numbers(k load.Kind, t topology) []int {
	if k != load.HTTP1 || t != twoHops || len(o.connections) < 3 || slices.Contains(o.connections, 128) {
		return o.connections
	}
	return slices.Sorted(slices.Values(append([]int{128}, o.connections...)))
}

// cell measures one subject with one kind of load in one topology, at every number of connections.
func (r *results) cell(round int, s subject, k load.Kind, t topology) error {
	o := r.options
	_, err := with(o, s, k, t, func(w *world, run *running) error {
		warm := plan(o, k, t, run, 8)
		warm.For = o.duration / 2
		if _, err := generate(run, warm); err != nil {
			return err
		}
		for _, c := range o.numbers(k, t) {
			before, err := cpu(run.pids)
			if err != nil {
				return err
			}
			done, err := generate(run, plan(o, k, t, run, c))
			if err != nil {
				return err
			}
			after, err := cpu(run.pids)
			if err != nil {
				return err
			}
			at := key{t, k, c, s.name}
			each := (after - before).Seconds() * 1e6 / float64(done.Done)
			unit := "µs"
			if k == load.TCP {
				each, unit = each*1024, "µs/MB"
			}
			r.cost[at] = append(r.cost[at], each)
			r.throughput[at] = append(r.throughput[at], float64(done.Done)/done.Elapsed.Seconds())
			fmt.Fprintf(os.Stderr, "round %d  %-15s %-15s %-16s %4d conn. %8d done %8.1f %s\n", round+1, t, k, s.name, c, done.Done, each, unit)
			if k == load.Connects {
				settle()
			}
		}
		return nil
	})
	return err
}

// latencies measures p50 and p99 at a constant rate, on one connection and on 32; what a proxy adds is the difference to
// no proxy at all.
func latencies(r *results) error {
	o := r.options
	r.p50, r.p99 = map[key][]float64{}, map[key][]float64{}
	direct := subject{"no proxy", func(_ *world, _ load.Kind, t topology, backend string) (*running, error) {
		if t != plain {
			return nil, nil
		}
		return &running{address: backend}, nil
	}}
	for round := range o.rounds {
		for _, t := range topologies {
			for _, k := range []load.Kind{load.HTTP1, load.HTTP2, load.GRPCUnary, load.GRPCStream} {
				if !wanted(o.topologies, string(t)) || !wanted(o.kinds, string(k)) {
					continue
				}
				for _, s := range append([]subject{direct}, allSubjects(o)...) {
					if err := r.latency(round, s, k, t); err != nil {
						return fmt.Errorf("%s, %s, %s: %w", s.name, k, t, err)
					}
				}
			}
		}
	}
	return nil
}

func (r *results) latency(round int, s subject, k load.Kind, t topology) error {
	o := r.options
	_, err := with(o, s, k, t, func(w *world, run *running) error {
		for _, c := range []int{1, 32} {
			p := plan(o, k, t, run, c)
			p.Rate, p.For = o.rate, o.duration/2
			if _, err := generate(run, p); err != nil { // warm
				return err
			}
			p.For = o.duration
			done, err := generate(run, p)
			if err != nil {
				return err
			}
			at := key{t, k, c, s.name}
			r.p50[at] = append(r.p50[at], done.P50.Seconds()*1e6)
			r.p99[at] = append(r.p99[at], done.P99.Seconds()*1e6)
			fmt.Fprintf(os.Stderr, "round %d  %-15s %-15s %-16s %4d conn. p50 %s p99 %s\n", round+1, t, k, s.name, c, done.P50, done.P99)
		}
		return nil
	})
	return err
}

// handshakes measures new mTLS connections per second of the proxy's CPU, with and without the post-quantum exchange.
func handshakes(r *results) error {
	o := r.options
	r.shakes = map[string]map[string][]float64{}
	for round := range o.rounds {
		for _, curve := range []string{"X25519", "X25519MLKEM768"} {
			for _, s := range allSubjects(o) {
				if s.name == "HAProxy" && curve != "X25519" || s.name == "nginx" && curve != "X25519" {
					continue // their OpenSSL does not have it
				}
				_, err := with(o, s, load.Connects, oneHop, func(w *world, run *running) error {
					p := plan(o, load.Connects, oneHop, run, 16)
					p.Curve = curve
					before, err := cpu(run.pids)
					if err != nil {
						return err
					}
					done, err := generate(run, p)
					if err != nil {
						return err
					}
					after, err := cpu(run.pids)
					if err != nil {
						return err
					}
					if r.shakes[curve] == nil {
						r.shakes[curve] = map[string][]float64{}
					}
					each := float64(done.Done) / (after - before).Seconds()
					r.shakes[curve][s.name] = append(r.shakes[curve][s.name], each)
					fmt.Fprintf(os.Stderr, "round %d  %-16s %-16s %8.0f new mTLS connections per CPU second\n", round+1, curve, s.name, each)
					settle()
					return nil
				})
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.name, curve, err)
				}
			}
		}
	}
	return nil
}
