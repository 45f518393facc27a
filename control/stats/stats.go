// Package stats remembers what proxies report: cumulative counts per edge, once a second. It answers what flowed in the
// last minutes and since the beginning. It keeps a few minutes in memory and nothing on disk; a restarted control
// plane hears the totals again from the proxies that live. Safe for concurrent use. Start reading at Report.
package stats

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/telemetry"
)

// Bounds.
const (
	fine      = time.Minute      // reports are all kept for this long,
	coarse    = 10 * time.Second // then one in this time,
	Keep      = 10 * time.Minute // and none that is older
	forget    = time.Minute      // after the last report of a workload, its totals are added to those of the departed
	maxEdges  = 4096             // per report
	maxReport = 4 << 20          // bytes
	maxTotals = 4 * maxEdges     // edges of proxies that count no more, per workload and of the departed; more are forgotten
)

// Stats is what was reported. Its zero value is ready to use.
type Stats struct {
	mu       sync.Mutex
	sources  map[string]*source
	departed []telemetry.Edge // totals of workloads that report no more
}

// source is one workload's reports.
type source struct {
	reports []report         // oldest first; never empty
	earlier []telemetry.Edge // totals of its proxies before this one, which count from zero again
}

type report struct {
	at    time.Time
	edges []telemetry.Edge
}

// Report takes a report of a workload, named "namespace/name". It answers an error for what cannot be read.
func (s *Stats) Report(workload string, text []byte, now time.Time) error {
	if len(text) > maxReport {
		return fmt.Errorf("report of %s: %d bytes, at most %d are taken", workload, len(text), maxReport)
	}
	var edges []telemetry.Edge
	if err := json.Unmarshal(text, &edges); err != nil {
		return fmt.Errorf("report of %s: %w", workload, err)
	}
	if len(edges) > maxEdges {
		return fmt.Errorf("report of %s: %d edges, at most %d are taken", workload, len(edges), maxEdges)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sources == nil {
		s.sources = map[string]*source{}
	}
	src := s.sources[workload]
	if src == nil {
		src = &source{}
		s.sources[workload] = src
	}
	src.add(report{now, edges})
	s.depart(now)
	return nil
}

// add appends a report and thins out old ones.
func (src *source) add(r report) {
	if n := len(src.reports); n > 0 && begunAgain(src.reports[n-1].edges, r.edges) {
		src.earlier = total(src.earlier, src.reports[n-1].edges)
		src.reports = nil
	}
	src.reports = append(src.reports, r)
	keep := src.reports[:0]
	for i, old := range src.reports {
		age := r.at.Sub(old.at)
		switch {
		case age > Keep && i < len(src.reports)-1:
		case age > fine && len(keep) > 0 && old.at.Sub(keep[len(keep)-1].at) < coarse:
		default:
			keep = append(keep, old)
		}
	}
	clear(src.reports[len(keep):])
	src.reports = keep
}

// total answers the sums of what is counted no more, bounded.
func total(lists ...[]telemetry.Edge) []telemetry.Edge {
	sum := telemetry.MergeEdges(slices.Concat(lists...), nil)
	return sum[:min(len(sum), maxTotals)]
}

// begunAgain reports whether counts have gone down, which only a new proxy's do.
func begunAgain(before, now []telemetry.Edge) bool {
	have := map[telemetry.EdgeKey]*telemetry.Edge{}
	for i := range now {
		have[now[i].EdgeKey] = &now[i]
	}
	for i := range before {
		b := &before[i]
		n := have[b.EdgeKey]
		if n == nil || n.Requests < b.Requests || n.Opened < b.Opened || n.Closed < b.Closed {
			return true
		}
	}
	return false
}

// depart keeps the totals of workloads that report no more. The caller holds mu.
func (s *Stats) depart(now time.Time) {
	for name, src := range s.sources {
		last := src.reports[len(src.reports)-1]
		if now.Sub(last.at) > Keep+forget {
			s.departed = total(s.departed, src.earlier, last.edges)
			delete(s.sources, name)
		}
	}
}

// Edges answers what flowed in the last window, merged over all proxies; for a window of 0, everything since the
// beginning.
func (s *Stats) Edges(window time.Duration, now time.Time) []telemetry.Edge {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []telemetry.Edge
	if window == 0 {
		all = append(all, s.departed...)
	}
	for _, src := range s.sources {
		all = append(all, src.since(window, now)...)
	}
	return telemetry.MergeEdges(all, nil)
}

// since answers a source's counts over the last window.
func (src *source) since(window time.Duration, now time.Time) []telemetry.Edge {
	last := src.reports[len(src.reports)-1]
	if window == 0 {
		return append(append([]telemetry.Edge(nil), src.earlier...), last.edges...)
	}
	begin := now.Add(-window)
	if last.at.Before(begin) {
		return nil
	}
	before := map[telemetry.EdgeKey]*telemetry.Edge{}
	for i := range src.reports {
		if r := src.reports[i]; !r.at.After(begin) {
			clear(before)
			for j := range r.edges {
				before[r.edges[j].EdgeKey] = &r.edges[j]
			}
		}
	}
	out := make([]telemetry.Edge, 0, len(last.edges))
	for _, e := range last.edges {
		if old := before[e.EdgeKey]; old != nil {
			e.Sub(old)
		}
		if e.Requests > 0 || e.Opened > 0 || e.Closed > 0 || e.Sent > 0 || e.Received > 0 {
			out = append(out, e)
		}
	}
	return out
}

// Observed answers what was counted since begin of the edges that pick takes, merged, and which workloads' proxies have counted such
// edges but have not reported for silent. What a proxy counted before its first report after begin is left out: whether that was
// before begin, or before a restart of the control plane, nobody knows. No more than Keep is known.
func (s *Stats) Observed(begin, now time.Time, silent time.Duration, pick func(*telemetry.EdgeKey) bool) (edges []telemetry.Edge, quiet []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, src := range s.sources {
		last := src.reports[len(src.reports)-1]
		if !slices.ContainsFunc(last.edges, func(e telemetry.Edge) bool { return pick(&e.EdgeKey) }) {
			continue
		}
		if now.Sub(last.at) > silent {
			quiet = append(quiet, name)
		}
		edges = append(edges, src.after(begin, pick)...)
	}
	slices.Sort(quiet)
	return telemetry.MergeEdges(edges, nil), quiet
}

// after answers a source's counts since its first report at begin or later.
func (src *source) after(begin time.Time, pick func(*telemetry.EdgeKey) bool) (out []telemetry.Edge) {
	i := slices.IndexFunc(src.reports, func(r report) bool { return !r.at.Before(begin) })
	if i < 0 {
		return nil
	}
	before := map[telemetry.EdgeKey]*telemetry.Edge{}
	for j := range src.reports[i].edges {
		before[src.reports[i].edges[j].EdgeKey] = &src.reports[i].edges[j]
	}
	for _, e := range src.reports[len(src.reports)-1].edges {
		if !pick(&e.EdgeKey) {
			continue
		}
		if old := before[e.EdgeKey]; old != nil {
			e.Sub(old)
		}
		out = append(out, e)
	}
	return out
}
