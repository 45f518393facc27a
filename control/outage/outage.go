// Package outage remembers what proxies have learned about how long failures of each destination last, merged over all of
// them, and the last outages. It says of which destinations the proxies should hear more. It keeps everything in memory,
// bounded, and a Keeper writes it to a store, so that a restarted control plane knows it. Memory is safe for concurrent use; no
// goroutines, time is an argument. Start reading at Memory.Report.
package outage

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/recovery"
)

// Bounds.
const (
	MaxDestinations = 4096            // of more, those that were reported on longest ago are forgotten
	MaxOutages      = 8               // that are told one by one, per destination
	Every           = 5 * time.Second // how often proxies hear of a destination at most
	news            = 0.05            // what has grown by less than this share is not worth telling
)

// Memory is what was reported. Its zero value is ready to use.
type Memory struct {
	mu sync.Mutex
	of map[model.PortName]*destination

	gone []model.PortName // forgotten, but still in the store; at most MaxDestinations
}

// destination is what is known of one; what was told is what proxies get, whatever was learned since.
type destination struct {
	learned  recovery.Learned
	told     *recovery.Learned
	toldAt   time.Time
	reported time.Time
	last     []Outage
	made     uint64
	refused  uint64
	left     int64     // the least that a caller has told lately
	leftAt   time.Time // when; zero: nobody has
	unsaved  bool      // it has changed since it was written
	saved    time.Time // when that was
}

// Outage is one as callers' proxies have seen it: those of several that overlap are one.
type Outage struct {
	Began, Ended time.Time
	Callers      int // reports
}

// Report takes what one proxy has learned.
func (m *Memory) Report(list []recovery.Report, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range list {
		name, err := model.ParsePortName(list[i].Cluster)
		if err != nil {
			continue // checked before; nobody asks for what has no name
		}
		d := m.of[name]
		if d == nil {
			d = m.add(name)
		}
		d.spent(&list[i], now)
		d.reported = now
		if list[i].Learned.Empty() {
			continue
		}
		d.unsaved = true
		d.learned.Merge(&list[i].Learned)
		for _, o := range list[i].Last {
			d.happened(o.Ended.Add(-o.Lasted), o.Ended)
		}
	}
}

// spent notes what became of further attempts.
func (d *destination) spent(r *recovery.Report, now time.Time) {
	d.made, d.refused = d.made+r.Made, d.refused+r.Refused
	if r.Left >= 0 && (r.Left <= d.left || now.Sub(d.leftAt) > lately) {
		d.left, d.leftAt = r.Left, now
	}
}

// lately is for how long what a caller has left counts.
const lately = 10 * time.Second

// add makes room for one more destination. The caller holds mu.
func (m *Memory) add(name model.PortName) *destination {
	if m.of == nil {
		m.of = map[model.PortName]*destination{}
	}
	if len(m.of) >= MaxDestinations {
		var oldest model.PortName
		var at time.Time
		for n, d := range m.of {
			if at.IsZero() || d.reported.Before(at) {
				oldest, at = n, d.reported
			}
		}
		delete(m.of, oldest)
		if len(m.gone) < MaxDestinations {
			m.gone = append(m.gone, oldest)
		}
	}
	d := &destination{}
	m.of[name] = d
	return d
}

// happened notes one outage, or another view of one.
func (d *destination) happened(began, ended time.Time) {
	for i := range d.last {
		if o := &d.last[i]; !began.After(o.Ended) && !ended.Before(o.Began) {
			o.Callers++
			if began.Before(o.Began) {
				o.Began = began
			}
			if ended.After(o.Ended) {
				o.Ended = ended
			}
			return
		}
	}
	d.last = append(d.last, Outage{began, ended, 1})
	slices.SortFunc(d.last, func(a, b Outage) int { return a.Ended.Compare(b.Ended) })
	if n := len(d.last) - MaxOutages; n > 0 {
		d.last = slices.Delete(d.last, 0, n)
	}
}

// Due answers the destinations of which proxies should hear what was learned since they were told last; from now on Learned
// answers that.
func (m *Memory) Due(now time.Time) (names []model.PortName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, d := range m.of {
		if now.Sub(d.toldAt) < Every || !d.grown() {
			continue
		}
		told := d.learned
		d.told, d.toldAt = &told, now
		names = append(names, n)
	}
	return names
}

// grown reports whether what was learned since is worth telling.
func (d *destination) grown() bool {
	if d.told == nil {
		return !d.learned.Empty()
	}
	return more(&d.told.Service, &d.learned.Service) || more(&d.told.Endpoint, &d.learned.Endpoint)
}

func more(was, is *recovery.Sketch) bool {
	a, b := was.Weight(), is.Weight()
	return b > a*(1+news) || b < a/2
}

// Learned answers what proxies are told about a destination, as model.Cluster.Recovery; nil if that is nothing.
func (m *Memory) Learned(name model.PortName) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.of[name]; d != nil && d.told != nil {
		return d.told.Append(nil)
	}
	return nil
}

// Destination is one as it is listed.
type Destination struct {
	Name    model.PortName
	Learned recovery.Learned
	Last    []Outage // the last one last

	Made, Refused uint64    // further attempts since this control plane began, and those that budgets did not allow
	Left          int64     // the least that a caller's budget has allowed within some ten seconds,
	LeftAt        time.Time // and when; zero: no caller with a budget was to try again
}

// List answers everything, ordered by name.
func (m *Memory) List() (out []Destination) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, d := range m.of {
		out = append(out, Destination{Name: n, Learned: d.learned, Last: slices.Clone(d.last),
			Made: d.made, Refused: d.refused, Left: d.left, LeftAt: d.leftAt})
	}
	slices.SortFunc(out, func(a, b Destination) int {
		if c := strings.Compare(a.Name.Service.String(), b.Name.Service.String()); c != 0 {
			return c
		}
		return int(a.Name.Port) - int(b.Name.Port)
	})
	return out
}
