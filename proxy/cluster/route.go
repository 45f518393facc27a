package cluster

import (
	"sync"

	"github.com/tulle-mesh/tulle/model"
)

// RouteBreakers are the breakers of the routes that have bounds of their own (model.Route.Breakers), by name, so that
// what is under way stays counted when the table is replaced. Its zero value is ready. Safe for concurrent use; it is asked
// once for each route of a table and loop, not for every request.
type RouteBreakers struct {
	mu     sync.Mutex
	byName map[string]*Breaker
}

// maxRouteBreakers is how many are kept before those that count nothing are forgotten.
const maxRouteBreakers = 4096

// Of answers the breaker of a route, whose limits are m from now on. Connections are not counted by it.
func (r *RouteBreakers) Of(name string, m *model.Breakers) *Breaker {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.byName[name]
	if b == nil {
		if len(r.byName) >= maxRouteBreakers {
			for n, old := range r.byName {
				if old.Now(Pending)+old.Now(Requests) == 0 {
					delete(r.byName, n)
				}
			}
		}
		if r.byName == nil {
			r.byName = map[string]*Breaker{}
		}
		b = &Breaker{}
		r.byName[name] = b
	}
	b.own.Store(m)
	return b
}
