// Package decisions remembers what proxies have let in and what not, per service: bounded in number and age, and in a folder of the
// control plane's, so that one that is restarted knows it. Where a service has too many paths they are folded into templates; what
// there is no room for even so is counted, and never lost without a word. Memory is safe for concurrent use; no goroutines, time is
// an argument. Start reading at Memory.Report.
package decisions

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
)

// Bounds.
const (
	MaxServices = 1024                // of more, those that were reported on longest ago are forgotten
	MaxEntries  = 2048                // per service
	MaxUnproven = 256                 // callers per service that came in plaintext and are told apart
	MaxLabels   = 32                  // different sets of labels of a service's workloads that are told apart
	Expires     = 30 * 24 * time.Hour // after this what was not seen again is forgotten
	crowd       = 16                  // different elements in one place of a path are a template's, when there are too many paths
)

// Entry is what was decided about one kind of request, by workloads of the same labels.
type Entry struct {
	Labels string `json:"labels,omitempty"` // of the workloads, "app=a,version=v1"; Mixed: too many to tell apart
	decision.Seen
}

// Caller is one that came in plaintext.
type Caller = decision.Unproven

// Mixed are the labels of workloads that are not told apart.
const Mixed = "*"

// Service is all that is known of one.
type Service struct {
	Name    model.ServiceName `json:"name"`
	Since   int64             `json:"since"`  // milliseconds of Unix time: since when it was listened to
	Others  uint64            `json:"others"` // decisions that there was no room for
	Entries []Entry           `json:"entries"`
	// Unproven came in plaintext; UnprovenOthers counts requests and connections of those that there was no room for.
	Unproven       []decision.Unproven `json:"unproven,omitempty"`
	UnprovenOthers uint64              `json:"unprovenOthers,omitempty"`
	Through        uint64              `json:"through,omitempty"` // on the disk: the number of the last journal that it has all of
}

// Memory is what was reported. Its zero value is ready to use.
type Memory struct {
	mu sync.Mutex
	of map[model.ServiceName]*service

	gone    []model.ServiceName // forgotten, but still on the disk; at most MaxServices
	dropped uint64              // decisions that there was no room for, since the start
}

type key struct {
	labels string
	decision.Key
}

type service struct {
	since, reported int64
	others          uint64
	seen            map[key]*decision.Seen
	unproven        decision.Report // of Unproven and UnprovenOthers alone
	labels          map[string]struct{}
	full            bool // folding makes no room any more
	unsaved         bool
}

// Labels answers labels in the form of Entry.Labels.
func Labels(list []model.Label) string {
	parts := make([]string, 0, len(list))
	for _, l := range list {
		parts = append(parts, l.Name+"="+l.Value)
	}
	return strings.Join(parts, ",")
}

// ParseLabels is the inverse of Labels.
func ParseLabels(s string) (out []model.Label) {
	for part := range strings.SplitSeq(s, ",") {
		if name, value, ok := strings.Cut(part, "="); ok {
			out = append(out, model.Label{Name: name, Value: value})
		}
	}
	return out
}

// Report takes what the proxy of a workload has seen.
func (m *Memory) Report(name model.ServiceName, labels []model.Label, r decision.Report, now time.Time) {
	if r.Empty() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.of[name]
	if s == nil {
		s = m.add(name, now.UnixMilli())
	}
	s.reported, s.unsaved = now.UnixMilli(), true
	s.others, m.dropped = sum(s.others, r.Others), sum(m.dropped, r.Others)
	for i := range r.Unproven {
		u := &r.Unproven[i]
		u.Last = min(u.Last, s.reported)
		u.First = min(u.First, u.Last)
	}
	s.unproven.AddUnproven(r.Unproven, r.UnprovenOthers, MaxUnproven)
	if len(r.Of) == 0 {
		return
	}
	text := s.known(Labels(labels))
	for i := range r.Of {
		one := r.Of[i]
		one.Last = min(one.Last, s.reported) // clocks differ; nothing happens later than now
		one.First = min(one.First, one.Last)
		m.dropped = sum(m.dropped, s.put(key{text, one.Key}, &one))
	}
}

// known answers the labels that an entry is kept under.
func (s *service) known(labels string) string {
	if _, ok := s.labels[labels]; ok || len(s.labels) < MaxLabels {
		s.labels[labels] = struct{}{}
		return labels
	}
	return Mixed
}

// add makes room for one more service. The caller holds mu.
func (m *Memory) add(name model.ServiceName, now int64) *service {
	if m.of == nil {
		m.of = map[model.ServiceName]*service{}
	}
	if len(m.of) >= MaxServices {
		var oldest model.ServiceName
		at := int64(math.MaxInt64)
		for n, s := range m.of {
			if s.reported < at {
				oldest, at = n, s.reported
			}
		}
		m.forget(oldest)
	}
	s := &service{since: now, seen: map[key]*decision.Seen{}, labels: map[string]struct{}{}}
	m.of[name] = s
	return s
}

func (m *Memory) forget(n model.ServiceName) {
	delete(m.of, n)
	if len(m.gone) < MaxServices {
		m.gone = append(m.gone, n)
	}
}

// put counts one entry, and answers how many decisions there was no room for. One of a kind that was folded goes there.
func (s *service) put(k key, one *decision.Seen) (dropped uint64) {
	if at := s.seen[k]; at != nil {
		at.Add(one)
		return 0
	}
	if len(s.seen) >= MaxEntries {
		if s.join(k, one) {
			return 0
		}
		if !s.full {
			s.fold()
			s.full = len(s.seen) >= MaxEntries
		}
		if s.join(k, one) {
			return 0
		}
	}
	if len(s.seen) >= MaxEntries {
		s.others = sum(s.others, one.Count)
		return one.Count
	}
	kept := *one
	kept.Key = k.Key
	s.seen[k] = &kept
	return 0
}

// join counts one entry with one that it is folded into, if there is such.
func (s *service) join(k key, one *decision.Seen) bool {
	for _, folded := range [...]func() key{k.unaddressed, k.folded, func() key { return s.template(k) }, k.unaddressed().folded, func() key { return s.template(k.unaddressed()) }} {
		if at := s.seen[folded()]; at != nil {
			sample(one, &k)
			at.Add(one)
			return true
		}
	}
	return false
}

// Count answers how many kinds of decisions are kept, and how many decisions there was no room for since the start.
func (m *Memory) Count() (kept int, dropped uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.of {
		kept += len(s.seen)
	}
	return kept, m.dropped
}

// folded answers the key with what looks like identifiers folded.
func (k key) folded() key {
	if k.GRPC || k.TCP {
		return k
	}
	if p, ok := decision.Fold(k.Path); ok {
		k.Path, k.Folded = p, true
	}
	return k
}

func sample(s *decision.Seen, k *key) {
	if s.Sample == "" && !k.Folded {
		s.Sample = k.Path
	}
}

// fold makes room, until there is some: the addresses of callers of which there are a crowd are forgotten, what looks like identifiers
// becomes a template, so does every place of a path where there are a crowd of different elements, and all addresses are forgotten.
func (s *service) fold() {
	for _, to := range [...]func() func(key) key{s.manyPlaced, func() func(key) key { return key.folded }, s.crowded, func() func(key) key { return key.unaddressed }} {
		if s.rekey(to()); len(s.seen) < MaxEntries {
			return
		}
	}
}

// unaddressed answers the key without addresses.
func (k key) unaddressed() key {
	k.Fields = decision.WithoutCaller(k.Fields)
	return k
}

// manyPlaced answers what forgets the addresses of those who came from too many.
func (s *service) manyPlaced() func(key) key {
	from := map[string]map[netip.Addr]struct{}{}
	for k := range s.seen {
		if a := k.Known().Caller; a.IsValid() {
			if from[k.Principal] == nil {
				from[k.Principal] = map[netip.Addr]struct{}{}
			}
			from[k.Principal][a] = struct{}{}
		}
	}
	return func(k key) key {
		if len(from[k.Principal]) <= crowd {
			return k
		}
		return k.unaddressed()
	}
}

// rekey files all entries under other keys.
func (s *service) rekey(to func(key) key) {
	out := make(map[key]*decision.Seen, len(s.seen))
	for k, one := range s.seen {
		next := to(k)
		if next != k {
			sample(one, &k)
			one.Key = next.Key
		}
		if at := out[next]; at != nil {
			at.Add(one)
		} else {
			out[next] = one
		}
	}
	s.seen = out
}

// crowded answers what folds the places of paths that too many different elements were seen in.
func (s *service) crowded() func(key) key {
	var paths []string
	for k := range s.seen {
		if !k.GRPC && !k.TCP {
			paths = append(paths, k.Path)
		}
	}
	fold := Templates(paths, crowd)
	return func(k key) key {
		if k.GRPC || k.TCP {
			return k
		}
		if p := fold[k.Path]; p != k.Path {
			k.Path, k.Folded = p, true
		}
		return k
	}
}

// template answers the key of an entry with a template that the path fits, or k.
func (s *service) template(k key) key {
	if k.GRPC || k.TCP {
		return k
	}
	elements := strings.Split(k.Path, "/")
	for other := range s.seen {
		if !other.Folded {
			continue
		}
		try := k
		try.Path, try.Folded = other.Path, true
		if try == other && Fits(strings.Split(other.Path, "/"), elements) {
			return other
		}
	}
	return k
}

func sum(a, b uint64) uint64 {
	if a+b < a {
		return math.MaxUint64
	}
	return a + b
}

// List answers the services that wanted takes, with what was seen from a time on, ordered.
func (m *Memory) List(wanted func(model.ServiceName) bool, from time.Time) (out []Service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, s := range m.of {
		if wanted(n) {
			out = append(out, s.list(n, from.UnixMilli()))
		}
	}
	slices.SortFunc(out, func(a, b Service) int { return strings.Compare(a.Name.String(), b.Name.String()) })
	return out
}

func (s *service) list(n model.ServiceName, from int64) Service {
	one := Service{Name: n, Since: s.since, Others: s.others, Entries: []Entry{}, UnprovenOthers: s.unproven.UnprovenOthers}
	for _, u := range s.unproven.Unproven {
		if u.Last >= from {
			one.Unproven = append(one.Unproven, u)
		}
	}
	slices.SortFunc(one.Unproven, func(a, b decision.Unproven) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Address, b.Address), cmp.Compare(b.Count, a.Count))
	})
	for k, seen := range s.seen {
		if seen.Last >= from {
			one.Entries = append(one.Entries, Entry{k.labels, *seen})
		}
	}
	slices.SortFunc(one.Entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method),
			cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Fields, b.Fields), cmp.Compare(a.Policy, b.Policy),
			cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Labels, b.Labels), cmp.Compare(a.First, b.First))
	})
	return one
}

// expire forgets what was not seen for too long. The caller holds mu.
func (m *Memory) expire(now time.Time) {
	before := now.Add(-Expires).UnixMilli()
	for n, s := range m.of {
		for k, seen := range s.seen {
			if seen.Last < before {
				delete(s.seen, k)
				s.unsaved, s.full = true, false
			}
		}
		if kept := slices.DeleteFunc(s.unproven.Unproven, func(u decision.Unproven) bool { return u.Last < before }); len(kept) < len(s.unproven.Unproven) {
			s.unproven.Unproven, s.unsaved = kept, true
		}
		if s.reported < before {
			m.forget(n)
		}
	}
}
