// Package snapshot is what one proxy may see: the name of a resource in, the resource as it goes over the wire out. It
// joins what is compiled from routes with what the registry knows, at the moment of asking. Pure but for what it is
// given; start reading at Snapshot.Resource.
package snapshot

import (
	"errors"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/resource"
)

// View is what a snapshot reads of the registry.
type View interface {
	compile.Services
	Services() []*registry.Service
	ByAddress(netip.Addr) (*registry.Service, bool)
	Endpoints(model.PortName) (*model.Endpoints, bool)
}

// Snapshot answers resources from one index of routes and the registry as it is now.
type Snapshot struct {
	Index *compile.Index
	View  View
	// Recovery answers model.Cluster.Recovery of a destination; nil: nobody learns.
	Recovery func(model.PortName) []byte
	Trust    func() *model.Trust // whom the mesh believes; nil: there is no authority
}

// ErrType: no resource of that type is served.
var ErrType = errors.New("resources of this type are not served")

// Resource compiles one resource and encodes it. It answers nil without an error when there is none of that name.
func (s Snapshot) Resource(typ, name string) (proto.Message, error) {
	c := compile.Compiler{Index: s.Index, Services: s.View}
	switch typ {
	case resource.TypeSecurity:
		n, err := model.ParseServiceName(name)
		if err != nil {
			return nil, nil // nothing can have that name
		}
		if m, ok := c.Security(n); ok {
			return encode(resource.EncodeSecurity(m))
		}
		return nil, nil
	case resource.TypeTrust:
		if s.Trust != nil && name == resource.TrustName {
			return encode(resource.EncodeTrust(s.Trust()))
		}
		return nil, nil
	}
	if typ == resource.TypeService {
		if n, ok := s.ServiceName(name); ok {
			if m, ok := c.Service(n); ok {
				return encode(resource.EncodeService(m))
			}
		}
		return nil, nil
	}
	n, caller, err := model.ParsePortNameFor(name)
	if err != nil || caller != "" && typ != resource.TypeRouteTable {
		return nil, nil // nothing can have that name
	}
	switch typ {
	case resource.TypeRouteTable:
		if m, ok := c.RouteTableFor(n, caller); ok {
			return encode(resource.EncodeRouteTable(m))
		}
	case resource.TypeCluster:
		if m, ok := c.Cluster(n); ok {
			if s.Recovery != nil {
				m.Recovery = s.Recovery(n)
			}
			return encode(resource.EncodeCluster(m))
		}
	case resource.TypeEndpoints:
		if m, ok := s.View.Endpoints(n); ok {
			return encode(resource.EncodeEndpoints(c.Endpoints(m)))
		}
	default:
		return nil, fmt.Errorf("%s: %w", typ, ErrType)
	}
	return nil, nil
}

// encode keeps a nil message from becoming an interface that is not nil.
func encode[M proto.Message](m M, err error) (proto.Message, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// ServiceName answers which service a name of type Service means: it is the service's own, or one of its virtual
// addresses.
func (s Snapshot) ServiceName(name string) (model.ServiceName, bool) {
	if a, err := netip.ParseAddr(name); err == nil {
		svc, ok := s.View.ByAddress(a)
		if !ok {
			return model.ServiceName{}, false
		}
		return svc.Name, true
	}
	n, err := model.ParseServiceName(name)
	return n, err == nil
}

// Names answers every name of a type, for foreign clients that ask with a wildcard.
func (s Snapshot) Names(typ string) []string {
	var out []string
	if typ == resource.TypeTrust {
		return []string{resource.TrustName}
	}
	for _, svc := range s.View.Services() {
		if typ == resource.TypeService || typ == resource.TypeSecurity {
			out = append(out, svc.Name.String())
			continue
		}
		for _, p := range svc.Ports {
			out = append(out, model.PortName{Service: svc.Name, Port: p.Port}.String())
		}
	}
	return out
}

// Dependents answers the services whose resources may change when svc does: those whose routes lead to it, and its versions
// that exist by themselves, which have its policies; and those with policies whose meaning depends on which ports it has.
func (s Snapshot) Dependents(svc model.ServiceName) []model.ServiceName {
	out, shares := s.Index.Dependents(svc), s.Index.Beside(svc)
	for _, v := range s.View.Services() {
		if v.Implicit && v.Selector["version"] != "" && v.Selector["service"] == svc.Name && v.Name.Namespace == svc.Namespace {
			out = append(out, v.Name)
		}
		if shares != nil && v.Name != svc && shares(v.Name) {
			out = append(out, v.Name)
		}
	}
	return out
}
