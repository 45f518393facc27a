package push

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/xds/server"
)

// WithdrawTimeout is how long a goodbye waits for the callers' proxies.
const WithdrawTimeout = 2 * time.Second

// Sessions turns what proxies say into facts of the registry. It is a server.Sessions.
type Sessions struct {
	Registry *registry.Registry
	Push     *Push
	// Serves says why a service account may not serve a service; nil: each may serve the one of its own name and no other.
	Serves func(namespace, account, service string) error
	// Stats takes the reports of proxies; nil drops them. It is called from many goroutines and keeps json.
	Stats func(w registry.Workload, json []byte)
	// Recovered takes what proxies have learned about how long failures last; nil drops it. Called as Stats is.
	Recovered func(list []recovery.Report)
	// Shown takes what a proxy proves its workload's identity with; Left is told that a session is over, said whether the workload
	// has said goodbye. Called as Stats is; nil drops them.
	Shown func(w registry.Workload, p server.Proof)
	Left  func(w registry.Workload, said bool)
	// Decided takes what a workload's proxy has let in and what not. Called as Stats is; nil drops it.
	Decided func(w registry.Workload, r decision.Report)
	// Captured takes what a proxy has found out about whether its program's traffic goes through it. Called as Stats is; nil drops it.
	Captured func(w registry.Workload, c server.Capture)
	Log      *slog.Logger
}

var _ server.Sessions = (*Sessions)(nil)

// Begin is part of server.Sessions. A proxy announces only what its identity stands for.
func (ss *Sessions) Begin(peer spiffe.ID, h server.Hello) (server.Session, error) {
	if peer.Namespace != h.Namespace || peer.ServiceAccount != h.ServiceAccount {
		return nil, fmt.Errorf("%s may not announce service account %s in namespace %s", peer, h.ServiceAccount, h.Namespace)
	}
	if h.Service != h.ServiceAccount {
		if ss.Serves == nil {
			return nil, fmt.Errorf("%s may not serve %s", peer, h.Service)
		}
		if err := ss.Serves(h.Namespace, h.ServiceAccount, h.Service); err != nil {
			return nil, err
		}
	}
	w := registry.Workload{
		Name: h.Workload, Namespace: h.Namespace, Service: h.Service, Version: h.Version, ServiceAccount: h.ServiceAccount,
		Labels: h.Labels, Address: h.Address, Metrics: h.Metrics, PID: h.PID, Starts: h.Starts, Identity: peer.String(),
	}
	for _, p := range h.Ports {
		w.Ports = append(w.Ports, registry.Port{Name: p.Name, Port: p.Port, Target: p.Target, Protocol: p.Protocol, Learned: p.Learned})
	}
	id, err := ss.Registry.Join(w, h.Ready)
	if err != nil {
		return nil, err
	}
	return &session{ss: ss, id: id, w: w}, nil
}

// session is a server.Session.
type session struct {
	ss *Sessions
	id registry.SessionID
	w  registry.Workload
}

func (s *session) Ready(ready bool)                      { s.ss.Registry.Ready(s.id, ready) }
func (s *session) Learned(port uint16, p model.Protocol) { s.ss.Registry.Learned(s.id, port, p) }

func (s *session) Stats(json []byte) {
	if s.ss.Stats != nil {
		s.ss.Stats(s.w, json)
	}
}

func (s *session) Recovered(list []recovery.Report) {
	if s.ss.Recovered != nil {
		s.ss.Recovered(list)
	}
}

func (s *session) Shown(p server.Proof) {
	if s.ss.Shown != nil {
		s.ss.Shown(s.w, p)
	}
}

func (s *session) Decided(r decision.Report) {
	if s.ss.Decided != nil {
		s.ss.Decided(s.w, r)
	}
}

func (s *session) Captured(c server.Capture) {
	if s.ss.Captured != nil {
		s.ss.Captured(s.w, c)
	}
}

func (s *session) Goodbye(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, WithdrawTimeout)
	defer cancel()
	return s.ss.Push.WaitHeld(ctx, s.ss.Registry.Goodbye(s.id))
}

func (s *session) End(said bool) {
	if !said {
		s.ss.Registry.Broken(s.id)
	}
	if s.ss.Left != nil {
		s.ss.Left(s.w, said)
	}
}
