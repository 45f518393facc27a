package live

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Dump is what is in force, for people and for `tulle routes` and `tulle endpoints`. Its lists are sorted by
// name.
type Dump struct {
	Connected bool          `json:"connected"`
	Services  []ServiceDump `json:"services"`
	Ports     []PortDump    `json:"ports"`
	Clusters  []ClusterDump `json:"clusters"`
}

// ServiceDump is one subscription of a service.
type ServiceDump struct {
	Subscription string         `json:"subscription"`
	Known        bool           `json:"known"`
	Service      *model.Service `json:"service"` // null: does not exist
}

// PortDump is one port with its route table.
type PortDump struct {
	Name     string        `json:"name"`
	State    string        `json:"state"`             // "ready", "warming", "retired"
	Waiting  bool          `json:"waiting,omitempty"` // a newer table waits for its clusters
	Protocol string        `json:"protocol"`
	Routes   []model.Route `json:"routes"`

	Caller string             `json:"caller,omitempty"` // the namespace that the table is for alone
	Relay  []model.RelayRoute `json:"relay,omitempty"`
}

// ClusterDump is one cluster with its endpoints.
type ClusterDump struct {
	Name           string         `json:"name"`
	State          string         `json:"state"` // "ready", "warming", "missing"
	Protocol       string         `json:"protocol,omitempty"`
	ConnectTimeout string         `json:"connect_timeout,omitempty"`
	Retries        *RetriesDump   `json:"retries,omitempty"`
	Endpoints      []EndpointDump `json:"endpoints"`
}

// RetriesDump is what became of further attempts at a cluster since the proxy began.
type RetriesDump struct {
	Made    uint64 `json:"made"`
	Refused uint64 `json:"refused"`        // the budget did not allow them
	Left    *int64 `json:"left,omitempty"` // that the budget allows now; none: the cluster has no such budget
}

// EndpointDump is one endpoint with what this proxy knows of it.
type EndpointDump struct {
	Workload        string         `json:"workload"`
	Namespace       string         `json:"namespace"`
	Address         netip.AddrPort `json:"address"`
	Port            uint16         `json:"port"`
	Identity        string         `json:"identity"`
	Version         string         `json:"version,omitempty"`
	Weight          uint32         `json:"weight"`
	Health          string         `json:"health"` // "healthy", "draining", "stale"
	Learned         string         `json:"learned,omitempty"`
	InFlight        int64          `json:"in_flight"`
	Total           uint64         `json:"total"`
	ConnectFailures int            `json:"connect_failures"` // in a row
}

// Dump answers what is in force.
func (l *Live) Dump() Dump {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := Dump{Connected: l.up, Services: []ServiceDump{}, Ports: []PortDump{}, Clusters: []ClusterDump{}}
	for name, r := range l.services {
		d.Services = append(d.Services, ServiceDump{name, r.known, r.model})
	}
	for _, p := range l.ports {
		d.Ports = append(d.Ports, p.dump())
	}
	for _, e := range l.clusters {
		d.Clusters = append(d.Clusters, e.dump())
	}
	slices.SortFunc(d.Services, func(a, b ServiceDump) int { return cmp.Compare(a.Subscription, b.Subscription) })
	slices.SortFunc(d.Ports, func(a, b PortDump) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(d.Clusters, func(a, b ClusterDump) int { return cmp.Compare(a.Name, b.Name) })
	return d
}

func (p *Port) dump() PortDump {
	d := PortDump{Name: p.name.String(), State: "warming", Waiting: p.next != nil && p.complete, Protocol: p.Protocol().String(), Routes: []model.Route{}}
	switch {
	case !p.asked:
		d.State = "retired"
	case p.complete:
		d.State = "ready"
	}
	if t := p.view.Load().table; t != nil {
		d.Caller, d.Relay = t.Model.Caller, t.Model.Relay
		if len(t.Model.Routes) > 0 {
			d.Routes = t.Model.Routes
		}
	}
	return d
}

func (e *entry) dump() ClusterDump {
	d := ClusterDump{Name: e.name.String(), State: "warming", Endpoints: []EndpointDump{}}
	switch {
	case e.known && e.cluster == nil:
		d.State = "missing"
		return d
	case e.cluster == nil:
		return d
	case e.warm():
		d.State = "ready"
	}
	d.Protocol, d.ConnectTimeout = e.cluster.Protocol().String(), e.cluster.ConnectTimeout().String()
	s := e.cluster.Spending(loop.Elapsed())
	d.Retries = &RetriesDump{Made: s.Made, Refused: s.Refused}
	if s.Left >= 0 {
		d.Retries.Left = &s.Left
	}
	for _, ep := range e.cluster.Endpoints() {
		m := ep.Model()
		x := EndpointDump{
			Workload: m.Workload, Namespace: m.Namespace, Address: m.Address, Port: m.Port, Identity: m.Identity,
			Version: m.Version, Weight: m.Weight, Health: healthNames[min(int(m.Health), len(healthNames)-1)],
			InFlight: ep.InFlight(), Total: ep.Total(), ConnectFailures: ep.ConnectFailures(),
		}
		if m.Learned != model.ProtocolUnknown {
			x.Learned = m.Learned.String()
		}
		d.Endpoints = append(d.Endpoints, x)
	}
	return d
}

var healthNames = [...]string{"healthy", "draining", "stale"}
