package live

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Place is where a workload's proxy is.
type Place struct {
	Address             netip.AddrPort
	Namespace, Workload string
}

// InForce reports whether m are the settings of its cluster as they are now. It is lock-free and for any goroutine.
func (l *Live) InForce(m *model.Cluster) bool {
	c := (*l.held.Load())[m.Name]
	return c != nil && c.Model() == m
}

// Reachable answers the places of all endpoints in force, so that pools can end connections to others. It is
// lock-free and for any goroutine; the map is the caller's.
func (l *Live) Reachable() map[Place]bool {
	out := map[Place]bool{}
	for _, c := range *l.held.Load() {
		for _, e := range c.Endpoints() {
			m := e.Model()
			out[Place{m.Address, m.Namespace, m.Workload}] = true
		}
	}
	return out
}

// Recovered answers what was learned since the last call about how long failures last, and what became of further attempts, of
// at most most destinations. For one goroutine.
func (l *Live) Recovered(most int) (out []recovery.Report) {
	for _, c := range *l.held.Load() {
		if len(out) >= most {
			break
		}
		learned, last, ok := c.Recovery().Take()
		if made, refused := c.Budget().News(); ok || made+refused > 0 {
			out = append(out, recovery.Report{Cluster: c.Name().String(), Learned: learned, Last: last,
				Made: made, Refused: refused, Left: c.Spending(loop.Elapsed()).Left})
		}
	}
	return out
}

// Spendings answers what became of further attempts at clusters. It is lock-free and for any goroutine.
func (l *Live) Spendings() []cluster.Spending {
	return cluster.Spendings(*l.held.Load(), loop.Elapsed())
}
