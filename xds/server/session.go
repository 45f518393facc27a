package server

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// Sessions is told what proxies say. A session is a value that New answers; calls about one session come one
// at a time, calls about different ones concurrently.
type Sessions interface {
	// Begin announces a workload whose proxy proved peer. The error refuses it and is told to the proxy.
	Begin(peer spiffe.ID, h Hello) (Session, error)
}

// Session is one announced workload.
type Session interface {
	Ready(ready bool)
	Learned(port uint16, p model.Protocol) // port is the workload's own
	Stats(json []byte)                     // kept by the callee
	Recovered(list []recovery.Report)      // likewise
	Shown(p Proof)                         // likewise
	Decided(r decision.Report)             // likewise
	Captured(c Capture)
	// Goodbye withdraws the workload and returns when its callers' proxies know, or when it has waited long
	// enough or ctx has ended: then it answers how many do not.
	Goodbye(ctx context.Context) (waiting int)
	// End says that the session is over: said reports whether Goodbye came before.
	End(said bool)
}

// Proof is what a proxy says that it proves its workload's identity with.
type Proof struct {
	Chain   [][]byte  // DER, leaf first; not verified
	Wall    time.Time // by the clock of the proxy's machine
	Failing string    // why it was not renewed, "" if it was
}

// Capture is what a proxy has found out about whether its program's traffic goes through it.
type Capture struct {
	Broken string // "": all is well
	Since  time.Time
	Closed bool // the workload takes no requests meanwhile
}

// Hello is what a proxy announces.
type Hello struct {
	Workload, Namespace, Service, Version, ServiceAccount string
	Labels                                                map[string]string
	Ports                                                 []Port
	Address, Metrics                                      netip.AddrPort
	PID, Starts                                           int
	Proxy                                                 string
	Ready                                                 bool
	Explains                                              bool // its proxy can be asked what it remembers
}

// Port is one port of an announced workload.
type Port struct {
	Name              string
	Port, Target      uint16
	Protocol, Learned model.Protocol
}

// Bounds of an announcement.
const (
	maxPorts  = 64
	maxLabels = 64
	maxText   = 253 // bytes of any name or label
)

// Join serves one session.
func (s *Service) Join(g tullepb.Session_JoinServer) error {
	id, err := s.peer(g.Context())
	if err != nil {
		return err
	}
	if s.cfg.Sessions == nil {
		return status.Error(codes.Unimplemented, "this control plane takes no sessions")
	}
	first, err := g.Recv()
	if err != nil {
		return err
	}
	h, err := readHello(first.GetHello())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	session, err := s.cfg.Sessions.Begin(id, h)
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	said := false
	defer func() { session.End(said) }()
	if err := g.Send(&tullepb.ToProxy{What: &tullepb.ToProxy_Joined{Joined: &tullepb.Joined{Now: time.Now().UnixMilli()}}}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(g.Context())
	speaker := speak(ctx, g.Send) // from here on nobody else sends
	defer speaker.done.Wait()
	defer cancel()
	told := func(Told) {}
	if s.cfg.Recall != nil {
		var left func()
		told, left = s.cfg.Recall.Join(h, speaker.ask(h))
		defer left()
	}
	for {
		m, err := g.Recv()
		if err != nil {
			return nil
		}
		switch w := m.GetWhat().(type) {
		case *tullepb.FromProxy_Goodbye:
			said = true
			answer := &tullepb.Withdrawn{Waiting: uint32(session.Goodbye(ctx))}
			select {
			case speaker.out <- &tullepb.ToProxy{What: &tullepb.ToProxy_Withdrawn{Withdrawn: answer}}:
			case <-ctx.Done():
				return nil
			}
		case *tullepb.FromProxy_Explained:
			told(readExplained(w.Explained))
		default:
			if err := hear(session, m); err != nil {
				return status.Error(codes.InvalidArgument, err.Error())
			}
		}
	}
}

func hear(s Session, m *tullepb.FromProxy) error {
	switch w := m.GetWhat().(type) {
	case *tullepb.FromProxy_Ready:
		s.Ready(w.Ready.GetReady())
	case *tullepb.FromProxy_Stats:
		s.Stats(w.Stats.GetJson())
	case *tullepb.FromProxy_Learned:
		port, p, err := readLearned(w.Learned)
		if err != nil {
			return err
		}
		s.Learned(port, p)
	case *tullepb.FromProxy_Recovered:
		list, err := readRecovered(w.Recovered)
		if err != nil {
			return err
		}
		s.Recovered(list)
	case *tullepb.FromProxy_Shown:
		p, err := readShown(w.Shown)
		if err != nil {
			return err
		}
		s.Shown(p)
	case *tullepb.FromProxy_Decided:
		r, err := readDecided(w.Decided)
		if err != nil {
			return err
		}
		s.Decided(r)
	case *tullepb.FromProxy_Captured:
		c := w.Captured
		s.Captured(Capture{Broken: c.GetBroken()[:min(len(c.GetBroken()), maxFailing)], Since: time.UnixMilli(c.GetSince()), Closed: c.GetClosed()})
	case *tullepb.FromProxy_Hello:
		return fmt.Errorf("a second hello")
	}
	return nil // a newer proxy may say what we do not know
}

// Bounds of what a proxy shows.
const (
	maxChain       = 8
	maxCertificate = 16 << 10 // bytes
	maxFailing     = 512
)

func readShown(m *tullepb.Shown) (p Proof, err error) {
	if n := len(m.GetChain()); n == 0 || n > maxChain {
		return p, fmt.Errorf("a chain of %d certificates: 1 to %d are taken", n, maxChain)
	}
	for _, c := range m.GetChain() {
		if len(c) > maxCertificate {
			return p, fmt.Errorf("a certificate of %d bytes: at most %d are taken", len(c), maxCertificate)
		}
	}
	failing := m.GetFailing()
	return Proof{Chain: m.GetChain(), Wall: time.UnixMilli(m.GetWall()), Failing: failing[:min(len(failing), maxFailing)]}, nil
}

func readHello(m *tullepb.Hello) (h Hello, err error) {
	if m == nil {
		return h, fmt.Errorf("the first message is not a hello")
	}
	for _, s := range []string{m.GetWorkload(), m.GetNamespace(), m.GetService(), m.GetVersion(), m.GetServiceAccount(), m.GetProxy()} {
		if err := validText("name", s); err != nil {
			return h, err
		}
	}
	if len(m.GetPorts()) > maxPorts || len(m.GetLabels()) > maxLabels || len(m.GetLearned()) > maxPorts {
		return h, fmt.Errorf("more than %d ports or %d labels", maxPorts, maxLabels)
	}
	for k, v := range m.GetLabels() {
		if err := cmp.Or(validText("label", k), validText("value of label", v)); err != nil {
			return h, err
		}
	}
	h = Hello{Workload: m.GetWorkload(), Namespace: m.GetNamespace(), Service: m.GetService(), Version: m.GetVersion(),
		ServiceAccount: m.GetServiceAccount(), Labels: m.GetLabels(), PID: int(m.GetPid()), Starts: int(m.GetStarts()), Proxy: m.GetProxy(), Ready: m.GetReady(),
		Explains: m.GetExplains()}
	if h.Address, err = readAddress(m.GetAddress()); err != nil {
		return h, err
	}
	if h.Metrics, err = readAddress(m.GetMetrics()); err != nil {
		return h, err
	}
	return h, readPorts(m, &h)
}

// validText refuses what could not travel on to the proxies that call this workload, or would be a line of its own in
// somebody's log: one announcement must not keep a service's other endpoints from anybody.
func validText(what, s string) error {
	if len(s) > maxText {
		return fmt.Errorf("%s %.20q… is longer than %d bytes", what, s, maxText)
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("%s %q holds a control character", what, s)
	}
	return nil
}

func readPorts(m *tullepb.Hello, h *Hello) error {
	learned := map[uint16]model.Protocol{}
	for _, l := range m.GetLearned() {
		port, p, err := readLearned(l)
		if err != nil {
			return err
		}
		learned[port] = p
	}
	for _, p := range m.GetPorts() {
		if bad(p.GetPort()) || bad(p.GetTarget()) {
			return fmt.Errorf("port %d to %d is not valid", p.GetPort(), p.GetTarget())
		}
		if err := validText("name of a port", p.GetName()); err != nil {
			return err
		}
		proto := model.ProtocolUnknown
		if p.GetProtocol() != "" {
			proto, _ = model.ParseProtocol(p.GetProtocol())
		}
		h.Ports = append(h.Ports, Port{Name: p.GetName(), Port: uint16(p.GetPort()), Target: uint16(p.GetTarget()),
			Protocol: proto, Learned: learned[uint16(p.GetTarget())]})
	}
	return nil
}

func bad(port uint32) bool { return port == 0 || port > math.MaxUint16 }

func readLearned(m *tullepb.Learned) (uint16, model.Protocol, error) {
	p := model.ProtocolUnknown
	if name := m.GetProtocol(); name != "" {
		var ok bool
		if p, ok = model.ParseProtocol(name); !ok || p < model.LearnedHTTP {
			return 0, 0, fmt.Errorf("protocol %.40q cannot be learned", name)
		}
	}
	if bad(m.GetPort()) {
		return 0, 0, fmt.Errorf("port %d is not valid", m.GetPort())
	}
	return uint16(m.GetPort()), p, nil
}

func readAddress(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("address %.60q is not host:port", s)
	}
	return a, nil
}
