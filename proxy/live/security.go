package live

import (
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
)

// trustName is the name of the only resource of KindTrust.
const trustName = "trust"

// single is a resource of which a proxy has one. changed is set before the subscription and never again.
type single[M any] struct {
	now     atomic.Pointer[M]
	changed func(*M)
}

// FollowSecurity subscribes to what the workload's service enforces. changed is called with each new value, from the goroutine
// that delivers it, when Believed answers it already; it must not wait. It is called once.
func (l *Live) FollowSecurity(service model.ServiceName, changed func(*model.Security)) {
	follow(l, &l.security, KindSecurity, service.String(), changed)
}

// FollowTrust subscribes to whom the mesh believes, as FollowSecurity does.
func (l *Live) FollowTrust(changed func(*model.Trust)) {
	follow(l, &l.trust, KindTrust, trustName, changed)
}

// Believed answers what the workload's proxy enforces and whom it believes; nil: it is not known yet. Lock-free.
func (l *Live) Believed() (*model.Security, *model.Trust) {
	return l.security.now.Load(), l.trust.now.Load()
}

func follow[M any](l *Live, s *single[M], kind Kind, name string, changed func(*M)) {
	l.mu.Lock()
	s.changed = changed
	l.subscribe(kind, name)
	l.mu.Unlock()
	l.flush()
}

// Security takes what a service enforces. nil, the service is not known, changes nothing: policies are never lost.
func (l *Live) Security(_ string, s *model.Security) { take(l, &l.security, s) }

// Trust takes whom the mesh believes; nil changes nothing.
func (l *Live) Trust(_ string, t *model.Trust) { take(l, &l.trust, t) }

func take[M any](l *Live, s *single[M], m *M) {
	if m == nil {
		return
	}
	l.mu.Lock()
	changed := s.changed
	l.mu.Unlock()
	s.now.Store(m)
	if changed != nil {
		changed(m)
	}
}
