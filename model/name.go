// Package model holds what runs: the immutable nouns that the control plane compiles and the data plane
// executes. A value of this package is never changed after it has been published; whoever needs a different
// one makes a new one. The package is pure: no I/O, no locks, no clock. Start reading at Service.
package model

import (
	"fmt"
	"strconv"
	"strings"
)

// ServiceName names a service inside the mesh.
type ServiceName struct {
	Namespace string
	Name      string
}

// String answers the form used in resource names and labels: "reviews.default", or the name alone where it is Free.
func (n ServiceName) String() string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.Name + "." + n.Namespace
}

// externalPrefix begins the names of services outside of the mesh; no Service can have such a name.
const externalPrefix = "external~"

// External names the ExternalService of that name: routes, clusters and metrics of it are called "external~payments.shop".
func External(namespace, name string) ServiceName {
	return ServiceName{Namespace: namespace, Name: externalPrefix + name}
}

// External answers the name of the ExternalService that n is; ok is false for every other service.
func (n ServiceName) External() (name string, ok bool) {
	return strings.CutPrefix(n.Name, externalPrefix)
}

// IsZero reports whether n names nothing.
func (n ServiceName) IsZero() bool { return n == ServiceName{} }

// PortName names one port of a service. It is the name of the route table, the cluster and the endpoints
// that belong to it, on the wire and in every listing.
type PortName struct {
	Service ServiceName
	Port    uint16
}

// Free names a cluster or route table that belongs to no service of the mesh, as Envoy's configuration does: any text.
func Free(name string) PortName { return PortName{Service: ServiceName{Name: name}} }

// String answers "reviews.default:9080", or the name alone where it is Free.
func (p PortName) String() string {
	if p.Port == 0 && p.Service.Namespace == "" {
		return p.Service.Name
	}
	return p.Service.String() + ":" + strconv.Itoa(int(p.Port))
}

// For answers the name of what is of this port and for the callers of one namespace alone: "reviews.default:9080@shop"; for
// everyone where caller is "".
func (p PortName) For(caller string) string {
	if caller == "" {
		return p.String()
	}
	return p.String() + "@" + caller
}

// ParsePortNameFor reads what For answers.
func ParsePortNameFor(s string) (p PortName, caller string, err error) {
	name, caller, ok := strings.Cut(s, "@")
	if ok && caller == "" {
		return PortName{}, "", fmt.Errorf("port name %q names no namespace after @", s)
	}
	p, err = ParsePortName(name)
	return p, caller, err
}

// ParseServiceName reads "name.namespace".
func ParseServiceName(s string) (ServiceName, error) {
	name, ns, ok := strings.Cut(s, ".")
	if !ok || name == "" || ns == "" || strings.Contains(ns, ".") {
		return ServiceName{}, fmt.Errorf("service name %q is not <name>.<namespace>", s)
	}
	return ServiceName{Namespace: ns, Name: name}, nil
}

// ParsePortName reads "name.namespace:port".
func ParsePortName(s string) (PortName, error) {
	head, port, ok := strings.Cut(s, ":")
	if !ok {
		return PortName{}, fmt.Errorf("port name %q is not <name>.<namespace>:<port>", s)
	}
	svc, err := ParseServiceName(head)
	if err != nil {
		return PortName{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return PortName{}, fmt.Errorf("port name %q: %q is not a port", s, port)
	}
	return PortName{Service: svc, Port: uint16(n)}, nil
}
