package outage_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/outage"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/recovery"
)

var (
	begin   = time.Unix(1_800_000_000, 0)
	reviews = model.PortName{Service: model.ServiceName{Namespace: "default", Name: "reviews"}, Port: 80}
)

// report answers what a proxy says that has seen n outages of a length, the last of which has ended at a time.
func report(name string, n int, lasted time.Duration, ended time.Time) []recovery.Report {
	r := recovery.Report{Cluster: name, Last: []recovery.Outage{{Ended: ended, Lasted: lasted}}}
	for range n {
		r.Learned.Service.Add(ended, lasted)
	}
	return []recovery.Report{r}
}

// What several proxies have seen is put together and told, but not more often than is worth it; outages that overlap are one.
func TestMemory(t *testing.T) {
	var m outage.Memory
	if m.Learned(reviews) != nil || m.Due(begin) != nil || m.List() != nil {
		t.Error("something is known at first")
	}
	m.Report(report(reviews.String(), 3, time.Second, begin), begin)
	m.Report(report(reviews.String(), 4, 2*time.Second, begin.Add(500*time.Millisecond)), begin)
	m.Report(report(reviews.String(), 1, time.Second, begin.Add(-time.Hour)), begin)
	m.Report(report("nonsense", 1, time.Second, begin), begin)
	if m.Learned(reviews) != nil {
		t.Error("told before it was due")
	}
	if names := m.Due(begin); len(names) != 1 || names[0] != reviews {
		t.Errorf("due: %v", names)
	}
	l, err := recovery.DecodeLearned(m.Learned(reviews))
	if err != nil || l.Service.Weight() < 7.9 || l.Service.Weight() > 8 {
		t.Errorf("weight %v, %v", l.Service.Weight(), err)
	}
	list := m.List()
	if len(list) != 1 || len(list[0].Last) != 2 {
		t.Fatalf("%+v", list)
	}
	if o := list[0].Last[1]; o.Callers != 2 || o.Ended.Sub(o.Began) != 2*time.Second {
		t.Errorf("%+v", o)
	}

	m.Report(report(reviews.String(), 20, time.Second, begin), begin)
	if names := m.Due(begin.Add(outage.Every - 1)); names != nil {
		t.Errorf("due too early: %v", names)
	}
	if names := m.Due(begin.Add(outage.Every)); len(names) != 1 {
		t.Error("not due")
	}
	if names := m.Due(begin.Add(time.Hour)); names != nil {
		t.Errorf("nothing new, and due: %v", names)
	}
}

func TestBounds(t *testing.T) {
	var m outage.Memory
	for i := range outage.MaxDestinations + 5 {
		m.Report(report(fmt.Sprintf("s%d.default:80", i), 1, time.Second, begin), begin.Add(time.Duration(i)*time.Second))
	}
	if n := len(m.List()); n != outage.MaxDestinations {
		t.Errorf("%d destinations", n)
	}
	for i := range 3 * outage.MaxOutages {
		m.Report(report("s100.default:80", 1, time.Second, begin.Add(time.Duration(i)*time.Minute)), begin)
	}
	for _, d := range m.List() {
		if len(d.Last) > outage.MaxOutages {
			t.Errorf("%d outages", len(d.Last))
		}
		if d.Name.Service.Name == "s0" {
			t.Error("the one that was reported on longest ago is remembered")
		}
	}
}

// TestSpent: attempts of all callers add up, also of who has learned nothing, and the least that one has left is told.
func TestSpent(t *testing.T) {
	var m outage.Memory
	for i, left := range []int64{7, 3, 5, -1} {
		m.Report([]recovery.Report{{Cluster: reviews.String(), Made: 10, Refused: 2, Left: left}}, begin.Add(time.Duration(i)*time.Second))
	}
	d := m.List()[0]
	if d.Made != 40 || d.Refused != 8 || d.Left != 3 || !d.LeftAt.Equal(begin.Add(time.Second)) {
		t.Errorf("%+v", d)
	}
	m.Report([]recovery.Report{{Cluster: reviews.String(), Left: 9}}, begin.Add(time.Minute))
	if d := m.List()[0]; d.Left != 9 {
		t.Errorf("%d are left after a minute", d.Left)
	}
	if m.Due(begin.Add(time.Minute)) != nil {
		t.Error("proxies are told though nothing was learned")
	}
}
