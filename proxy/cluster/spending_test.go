package cluster_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
)

// TestSpending: what was made and refused is told, with what is left; of many clusters the busiest by themselves and the others
// together.
func TestSpending(t *testing.T) {
	c := cluster.New(&model.Cluster{Name: model.Free("c"), Budget: model.Budget{Percent: 20, Least: 3}})
	now := time.Second
	for range 20 {
		c.First(now, true)
	}
	if s := c.Spending(now); s.Left != 4 || s.Made+s.Refused != 0 {
		t.Errorf("at first: %+v", s)
	}
	for range 6 {
		c.MayRepeat(now, nil, false, 0)
	}
	if s := c.Spending(now); s != (cluster.Spending{Cluster: "c", Made: 4, Refused: 2}) {
		t.Errorf("used up: %+v", s)
	}
	if s := c.Spending(now + time.Minute); s.Left != 3 {
		t.Errorf("later: %+v", s)
	}
	if made, refused := c.Budget().News(); made != 4 || refused != 2 {
		t.Errorf("news: %d and %d", made, refused)
	}
	if made, refused := c.Budget().News(); made+refused != 0 {
		t.Error("told twice")
	}
	off := cluster.New(&model.Cluster{Name: model.Free("off"), Budget: model.Budget{Off: true}})
	if s := off.Spending(now); s.Left != -1 {
		t.Errorf("without a budget: %+v", s)
	}
	all := map[model.PortName]*cluster.Cluster{model.Free("quiet"): off}
	for i := range cluster.MostSpending + 20 {
		c := cluster.New(&model.Cluster{Name: model.Free(fmt.Sprintf("c%03d", i))})
		for range 1 + i/(cluster.MostSpending+10) {
			c.MayRepeat(now, nil, true, 0)
		}
		all[c.Name()] = c
	}
	list := cluster.Spendings(all, now)
	other := list[len(list)-1]
	if len(list) != cluster.MostSpending+1 || list[0].Cluster != "c000" || list[len(list)-2].Cluster != "c119" || other.Cluster != "other" || other.Made != 20 || other.Left != -1 {
		t.Errorf("%d, %+v, %+v", len(list), list[0], other)
	}
}
