package registry

import (
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// State says how alive a workload is.
type State uint8

// States of a workload.
const (
	Starting State = iota // announced, not ready: not an endpoint yet
	Live                  // ready, its session is up
	Lost                  // its session broke; it stays an endpoint until its grace ends
	Stale                 // its grace has ended, but too many would have ended with it
)

var stateNames = [...]string{"starting", "live", "lost", "stale"}

// String answers the name used in listings.
func (s State) String() string { return stateNames[s] }

// Port is one port of a workload.
type Port struct {
	Name     string
	Port     uint16         // of the service
	Target   uint16         // that the program listens on; equal to Port unless given
	Protocol model.Protocol // declared, or ProtocolUnknown
	Learned  model.Protocol // one of the Learned values, or ProtocolUnknown
}

// Workload is one announced program with its proxy.
type Workload struct {
	Name           string // unique in its namespace
	Namespace      string
	Service        string // bare name of its service, in its namespace
	Version        string
	ServiceAccount string
	Labels         map[string]string
	Ports          []Port
	Address        netip.AddrPort // mesh inbound of its proxy; not valid for a pure client
	Metrics        netip.AddrPort // of its proxy
	PID            int            // of its supervisor, on its machine
	Starts         int            // proxies that this supervisor had started before this one
	Identity       string         // SPIFFE ID that its proxy proved
	State          State
	Since          time.Time // of State
}

// Key answers "namespace/name".
func (w *Workload) Key() string { return w.Namespace + "/" + w.Name }

// Service is a name that workloads answer to.
type Service struct {
	model.Service
	Implicit  bool              // there is no Service object of that name
	Selector  map[string]string // nil for an implicit service without version
	Targets   []Target          // per model.Service.Ports, in the same order
	Workloads int               // endpoints of its first port
	Picker    *model.Picker     // who says which endpoint takes a request: of an InferencePool; else nil
}

// Target is where a port of a service leads on the workload: a number, or the name of one of its ports.
type Target struct {
	Port uint16
	Name string   // "" when Port says it
	Also []uint16 // further ports, each an endpoint of its own: of an InferencePool
}

// View is what the rest of the control plane reads. Values that it answers are never changed afterwards and
// must not be changed. Safe for concurrent use.
type View interface {
	// Services answers all services, ordered by namespace and name.
	Services() []*Service
	// Service answers one service; ok is false when there is none of that name.
	Service(model.ServiceName) (s *Service, ok bool)
	// ByAddress answers the service that has the virtual address a.
	ByAddress(a netip.Addr) (s *Service, ok bool)
	// Endpoints answers the endpoints behind a port; ok is false when no service has that port. A service
	// without a live workload has an empty set.
	Endpoints(model.PortName) (e *model.Endpoints, ok bool)
	// Workloads answers all workloads, ordered by namespace and name.
	Workloads() []*Workload
	// Watch calls f after every change, when the view shows it, one call at a time and in order. f must not
	// wait for anything and must not change the registry. The returned function ends that and does not wait
	// for a call under way.
	Watch(f func(Change)) (stop func())
}

// Change says what is different now. The names are sorted and without repetition.
type Change struct {
	Revision  uint64 // counts the changes of this registry, from 1
	Services  []model.ServiceName
	Endpoints []model.PortName
}
