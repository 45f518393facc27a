package cluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/retry"
)

// Spending is what became of further attempts at a cluster.
type Spending struct {
	Cluster string // its name; "other": of several, which have no series of their own
	Made    uint64 // attempts
	Refused uint64 // that the budget, or a bound of what is under way, did not allow
	Left    int64  // that the budget allows now; -1: the cluster has none, or bounds what is under way instead
}

// MostSpending is of how many clusters Spendings tells one by one.
const MostSpending = 100

// Spending answers the cluster's, at loop time now. From any goroutine.
func (c *Cluster) Spending(now time.Duration) Spending {
	b, m := &c.attempts.budget, c.model.Load().Budget
	s := Spending{Cluster: c.name.String(), Made: b.Again(), Refused: b.Refused(), Left: -1}
	if !m.Off && !m.UnderWay {
		s.Left = retry.Left(retry.Filled(m), b.Sums(now))
	}
	return s
}

// Spendings answers those of clusters that were to be tried again, in the order of their names. Of more than MostSpending those
// with the fewest attempts, made and refused, are one.
func Spendings(all map[model.PortName]*Cluster, now time.Duration) (out []Spending) {
	for _, c := range all {
		if s := c.Spending(now); s.Made+s.Refused > 0 {
			out = append(out, s)
		}
	}
	if len(out) > MostSpending {
		slices.SortFunc(out, func(a, b Spending) int {
			return cmp.Or(cmp.Compare(b.Made+b.Refused, a.Made+a.Refused), cmp.Compare(a.Cluster, b.Cluster))
		})
		other := Spending{Cluster: "other", Left: -1}
		for _, s := range out[MostSpending:] {
			other.Made, other.Refused = other.Made+s.Made, other.Refused+s.Refused
		}
		out = append(out[:MostSpending], other)
	}
	slices.SortFunc(out, func(a, b Spending) int { return cmp.Compare(a.Cluster, b.Cluster) })
	return out
}

// News answers how many attempts were made and refused since the last call. For one goroutine.
func (b *Budget) News() (made, refused uint64) {
	made, refused = b.Again(), b.Refused()
	return made - b.told[0].Swap(made), refused - b.told[1].Swap(refused)
}
