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
	changed func(*M) error
}

// FollowSecurity subscribes to what the workload's service enforces. changed is called with each new value, from the goroutine
// that delivers it; it must not wait. Its error refuses the value, which Believed never answers then. It is called once.
func (l *Live) FollowSecurity(service model.ServiceName, changed func(*model.Security) error) {
	follow(l, &l.security, KindSecurity, service.String(), changed)
}

// FollowTrust subscribes to whom the mesh believes, as FollowSecurity does; while changed runs, Believed answers the new one already.
func (l *Live) FollowTrust(changed func(*model.Trust) error) {
	follow(l, &l.trust, KindTrust, trustName, changed)
}

// Believed answers what the workload's proxy enforces and whom it believes; nil: it is not known yet. Lock-free.
func (l *Live) Believed() (*model.Security, *model.Trust) {
	return l.security.now.Load(), l.trust.now.Load()
}

func follow[M any](l *Live, s *single[M], kind Kind, name string, changed func(*M) error) {
	l.mu.Lock()
	s.changed = changed
	l.subscribe(kind, name)
	l.mu.Unlock()
	l.flush()
}

// Security takes what a service enforces. nil, the service is not known, changes nothing: policies are never lost.
// An error refuses it.
func (l *Live) Security(_ string, s *model.Security) error { return take(l, &l.security, s, false) }

// Trust takes whom the mesh believes; nil changes nothing. An error refuses it.
func (l *Live) Trust(_ string, t *model.Trust) error { return take(l, &l.trust, t, true) }

// take tells m, and keeps it unless it is refused; first: it is kept before it is told, and what was before comes back.
func take[M any](l *Live, s *single[M], m *M, first bool) error {
	if m == nil {
		return nil
	}
	l.mu.Lock()
	changed := s.changed
	l.mu.Unlock()
	before := s.now.Load()
	if first {
		s.now.Store(m)
	}
	if changed != nil {
		if err := changed(m); err != nil {
			s.now.Store(before)
			return err
		}
	}
	s.now.Store(m)
	return nil
}
