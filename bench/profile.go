package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/tulle-mesh/tulle/bench/load"
)

// stages are where the time of a request goes, by the innermost frame that belongs to one of these packages or
// functions; the first that fits.
var stages = []struct{ name, part string }{
	{"wait for events (epoll)", "loop.(*Epoll).wait"},
	{"read from sockets", "proxy/loop.(*conn).read"},
	{"write to sockets", "proxy/loop.(*conn).flush"},
	{"write to sockets", "proxy/loop.(*conn).writeThrough"},
	{"parse and format HTTP", "proxy/http1."},
	{"parse and format HTTP", "proxy/http2."},
	{"parse and format HTTP", "proxy/hpack."},
	{"serve the connection", "proxy/downstream."},
	{"route", "proxy/router."},
	{"pick an endpoint", "proxy/cluster."},
	{"pick an endpoint", "proxy/balancer."},
	{"find a connection", "proxy/pool."},
	{"speak to the server", "proxy/upstream."},
	{"metrics and record", "proxy/observe."},
	{"exchange", "proxy/exchange."},
	{"TLS", "crypto/"},
	{"TLS", "proxy/mtls."},
	{"event loop", "proxy/loop."},
}

// stage is a share of the time.
type stage struct {
	name  string
	share float64
}

// profiles takes a CPU profile of one plain HTTP/1.1 hop under load and folds it into stages.
func profiles(r *results) error {
	o := r.options
	if !wanted(o.subjects, "Tulle") {
		return nil
	}
	_, err := with(o, subject{"Tulle", startTulle}, load.HTTP1, plain, func(w *world, run *running) error {
		p := plan(o, load.HTTP1, plain, run, 32)
		p.For = 8 * time.Second
		ended := make(chan error, 1)
		go func() {
			_, err := generate(run, p)
			ended <- err
		}()
		time.Sleep(time.Second)
		prof, err := fetchProfile("http://" + w.admin + "/debug/pprof/profile?seconds=5")
		if err != nil {
			return err
		}
		r.stages = fold(prof)
		return <-ended
	})
	return err
}

func fetchProfile(url string) (*profile.Profile, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // only to say more
		return nil, fmt.Errorf("%s: %s %s", url, resp.Status, text)
	}
	return profile.Parse(resp.Body)
}

// fold answers the share of each stage, the largest first.
func fold(p *profile.Profile) []stage {
	last := len(p.SampleType) - 1
	sum, total := map[string]int64{}, int64(0)
	for _, s := range p.Sample {
		sum[stageOf(s)] += s.Value[last]
		total += s.Value[last]
	}
	var out []stage
	for name, n := range sum {
		out = append(out, stage{name, float64(n) / float64(total)})
	}
	slices.SortFunc(out, func(a, b stage) int { return int((b.share - a.share) * 1e9) })
	return out
}

func stageOf(s *profile.Sample) string {
	for _, l := range s.Location { // the innermost first
		for _, line := range l.Line {
			for _, st := range stages {
				if strings.Contains(line.Function.Name, st.part) {
					return st.name
				}
			}
		}
	}
	return "runtime (scheduler, collector)"
}
