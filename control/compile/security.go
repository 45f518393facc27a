package compile

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// SecurityPolicy is a stored AuthorizationPolicy or AuthenticationPolicy and when it was made.
type SecurityPolicy struct {
	Object  v1alpha1.Object
	Created int64 // as Route's
}

// SecurityKinds are the kinds that say who may do what.
func SecurityKinds() []string { return []string{"AuthorizationPolicy", "AuthenticationPolicy"} }

// name answers "AuthorizationPolicy/default/cart".
func (p SecurityPolicy) name() string {
	return v1alpha1.KindOf(p.Object).Name + "/" + p.Object.GetNamespace() + "/" + p.Object.GetName()
}

// targets answers what the policy is about.
func (p SecurityPolicy) targets() *v1alpha1.SecurityTargets {
	switch o := p.Object.(type) {
	case *v1alpha1.AuthorizationPolicy:
		return &o.Spec.SecurityTargets
	case *v1alpha1.AuthenticationPolicy:
		return &o.Spec.SecurityTargets
	}
	return &v1alpha1.SecurityTargets{}
}

// security is all policies about security, and what MeshConfig says.
type security struct {
	all  []SecurityPolicy // oldest first
	mesh *v1alpha1.MeshConfigSpec
}

// Secured answers an index of the same routes and other policies about security; mesh is what MeshConfig says, nil: nothing.
func (ix *Index) Secured(list []SecurityPolicy, mesh *v1alpha1.MeshConfigSpec) *Index {
	out := *ix
	out.security = security{all: slices.SortedFunc(slices.Values(list), func(a, b SecurityPolicy) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.name(), b.name()))
	}), mesh: mesh}
	return &out
}

// Mesh answers what MeshConfig says, nil: nothing.
func (ix *Index) Mesh() *v1alpha1.MeshConfigSpec { return ix.security.mesh }

// SecurityPolicies answers all policies about security, oldest first.
func (ix *Index) SecurityPolicies() []SecurityPolicy { return ix.security.all }

// About reports whether a policy is about a service, and answers the sections of it that are named; none: all of it.
func (p SecurityPolicy) About(name model.ServiceName) (sections []string, ok bool) {
	t := p.targets()
	ns := p.Object.GetNamespace()
	if len(t.TargetRefs) == 0 {
		_, external := name.External()
		return nil, !external && (ns == name.Namespace || ns == v1alpha1.RootNamespace)
	}
	whole := false
	for _, ref := range t.TargetRefs {
		if ns == name.Namespace && refersTo(ref.Kind, ns, ref.Name) == name {
			ok, whole = true, whole || ref.SectionName == ""
			sections = append(sections, ref.SectionName)
		}
	}
	if whole {
		sections = nil
	}
	return sections, ok
}

// Security answers what the proxies of a service's workloads enforce.
func (c Compiler) Security(name model.ServiceName) (*model.Security, bool) {
	if _, external := name.External(); external {
		return nil, false // it has no workloads here
	}
	svc, ok := c.Services.Service(name)
	if !ok { // of a pure client, which answers to no name and yet calls others
		svc = &registry.Service{}
	}
	out := &model.Security{Name: name, Egress: c.egress(name)}
	if m := c.Index.security.mesh; m != nil {
		out.DenyByDefault = m.Authorization != nil && m.Authorization.Default == v1alpha1.ActionDeny
		out.TrustedHops = uint32(m.TrustedHops)
	}
	var proofs proofs
	for _, p := range c.Index.security.all {
		sections, about := p.About(name)
		if !about {
			continue
		}
		ports, all := c.sections(svc.Ports, sections)
		if !all && len(ports) == 0 {
			continue // its status says that there is no such port
		}
		switch o := p.Object.(type) {
		case *v1alpha1.AuthorizationPolicy:
			c.authorization(out, p.name(), o, ports, svc.Ports)
		case *v1alpha1.AuthenticationPolicy:
			c.authentication(&proofs, p.name(), o, ports, svc.Ports)
		}
	}
	proofs.into(out, c.Index.security.mesh)
	return out, true
}

// sections answers the numbers of the ports that are named; all: none was, so every port is meant.
func (c Compiler) sections(ports []model.ServicePort, sections []string) (out []uint16, all bool) {
	if len(sections) == 0 {
		return nil, true
	}
	for _, p := range ports {
		if slices.Contains(sections, p.Name) || slices.Contains(sections, strconv.Itoa(int(p.Port))) {
			out = append(out, p.Port)
		}
	}
	return out, false
}

// labels answers a selector, in order.
func labels(selector map[string]string) (out []model.Label) {
	for _, k := range slices.Sorted(maps.Keys(selector)) {
		out = append(out, model.Label{Name: k, Value: selector[k]})
	}
	return out
}

// SecurityStatus answers the services that a policy about security bears on, whether it is accepted, and whether what it names is there.
func (c Compiler) SecurityStatus(o v1alpha1.Object, every []model.ServiceName) (services []model.ServiceName, accepted, resolved Condition) {
	p := SecurityPolicy{Object: o}
	for _, name := range every {
		if _, about := p.About(name); about {
			services = append(services, name)
		}
	}
	resolved = c.named(o)
	accepted = Condition{Type: "Accepted", True: true, Reason: "Accepted", Message: "bears on " + count(len(services), "Service")}
	for _, ref := range p.targets().TargetRefs {
		var s TargetStatus
		if v := c.target(o.GetNamespace(), ref, &s); v.reason != "" {
			return services, Condition{Type: "Accepted", Reason: v.reason, Message: v.message}, resolved
		}
	}
	for _, n := range Expressions(o) {
		return services, Condition{Type: "Accepted", Reason: "Invalid", Message: n.Path + ": " + n.Message}, resolved
	}
	return services, accepted, resolved
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
