package compile

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// refersTo answers the service that a reference of a kind names.
func refersTo(kind, namespace, name string) model.ServiceName {
	if kind == v1alpha1.ExternalKind {
		return model.External(namespace, name)
	}
	return model.ServiceName{Namespace: namespace, Name: name}
}

// fullName answers "Service/default/cart", or "ExternalService/shop/payments".
func fullName(n model.ServiceName) string {
	if name, ok := n.External(); ok {
		return v1alpha1.ExternalKind + "/" + n.Namespace + "/" + name
	}
	return "Service/" + n.Namespace + "/" + n.Name
}

// external answers the ExternalService that a service is; nil: it is another one.
func (ix *Index) external(n model.ServiceName) *v1alpha1.ExternalService {
	name, ok := n.External()
	if !ok {
		return nil
	}
	for _, o := range ix.beside.Externals {
		if o.Namespace == n.Namespace && o.Name == name {
			return o
		}
	}
	return nil
}

// Externals answers every ExternalService.
func (ix *Index) Externals() []*v1alpha1.ExternalService { return ix.beside.Externals }

// callExternal says how the callers' proxies find and call a port of an ExternalService; nothing for every other service.
func (c Compiler) callExternal(m *model.Cluster) {
	o := c.Index.external(m.Name.Service)
	if o == nil {
		return
	}
	at := slices.IndexFunc(o.Spec.Ports, func(p v1alpha1.ExternalPort) bool { return uint16(p.Port) == m.Name.Port })
	if at < 0 {
		return
	}
	p := &o.Spec.Ports[at]
	m.DNS = model.DNSOptions{Refresh: o.Spec.Refresh.Value(), RespectTTL: true, Family: model.DNSAll}
	switch o.Spec.Resolution {
	case v1alpha1.ResolutionOriginal:
		m.Discovery, m.DNS = model.DiscoveryOriginal, model.DNSOptions{}
	case v1alpha1.ResolutionDNS:
		m.Discovery = model.DiscoveryStrictDNS
		for _, e := range o.Spec.Endpoints {
			m.Hosts = append(m.Hosts, model.Host{Name: e.Address, Port: uint16(cmp.Or(e.Port, p.TargetPort)), Weight: uint32(e.Weight)})
		}
		if len(m.Hosts) == 0 {
			m.Hosts = []model.Host{{Name: o.Spec.Hosts[0], Port: uint16(p.TargetPort), Weight: 1}}
		}
	default:
		m.DNS = model.DNSOptions{}
	}
	if p.TLS != nil {
		m.TLS = originate(p.TLS)
	}
	switch {
	case p.Protocol == "grpc":
		m.Upstream.Version = model.UpstreamHTTP2
	case p.Protocol == "http" && p.TLS != nil:
		m.Upstream.Version = model.UpstreamAuto
	case p.Protocol == "http":
		m.Upstream.Version = model.UpstreamHTTP1
	}
}

// originate says how a caller's proxy begins TLS. Private keys are files of the caller's machine: they are named and never
// travel.
func originate(t *v1alpha1.ExternalTLS) *model.ClientTLS {
	out := &model.ClientTLS{SNI: t.ServerName, AutoSNI: t.ServerName == "", Validation: &model.Validation{System: t.CACertificates == ""}}
	if t.CACertificates != "" {
		out.Validation.Roots.Inline = &model.Secret{Roots: model.Material{Bytes: []byte(t.CACertificates)}}
	}
	names := t.SubjectAltNames
	if len(names) == 0 && t.ServerName != "" {
		names = []string{t.ServerName}
	}
	out.AutoSANs = len(names) == 0
	for _, n := range names {
		m := model.SANMatch{Kind: model.SANDNS, Match: model.StringMatch{Value: n, IgnoreCase: true}}
		if strings.HasPrefix(n, "spiffe://") {
			m.Kind, m.Match.IgnoreCase = model.SANURI, false
		}
		out.Validation.SANs = append(out.Validation.SANs, m)
	}
	if t.CertificateFile != "" {
		out.Certificates = []model.SecretRef{{Inline: &model.Secret{Certificate: model.Material{File: t.CertificateFile}, Key: model.Material{File: t.KeyFile}}}}
	}
	return out
}

// staticEndpoints answers the endpoints of an ExternalService that has addresses; nil: it is found otherwise.
func (c Compiler) staticEndpoints(name model.PortName) (out []model.Endpoint) {
	o := c.Index.external(name.Service)
	if o == nil || o.Spec.Resolution != v1alpha1.ResolutionStatic {
		return nil
	}
	for _, p := range o.Spec.Ports {
		if uint16(p.Port) != name.Port {
			continue
		}
		for _, e := range o.Spec.Endpoints {
			if a, err := netip.ParseAddr(e.Address); err == nil {
				at := netip.AddrPortFrom(a.Unmap(), uint16(cmp.Or(e.Port, p.TargetPort)))
				out = append(out, model.Endpoint{Address: at, Weight: uint32(e.Weight)})
			}
		}
	}
	return out
}

// egress answers whom the workloads of a service may talk to outside of the mesh.
func (c Compiler) egress(name model.ServiceName) (out model.Egress) {
	if m := c.Index.security.mesh; m != nil && m.Egress != nil {
		if m.Egress.Mode == v1alpha1.EgressRegistry {
			out.Mode = model.EgressRegistry
		}
		for i := range m.Egress.Rules {
			r := &m.Egress.Rules[i]
			if len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, name.Namespace) || len(r.Services) > 0 && !slices.Contains(r.Services, name.Name) {
				continue
			}
			rule := model.EgressRule{Policy: "MeshConfig/" + v1alpha1.MeshConfigName + " " + r.Name, Labels: labels(r.Selector), Addresses: blocks(r.Addresses), Deny: r.Action == v1alpha1.ActionDeny}
			for _, p := range r.Ports {
				rule.Ports = append(rule.Ports, uint16(p))
			}
			out.Rules = append(out.Rules, rule)
		}
	}
	own := func(o *v1alpha1.ExternalService) int {
		if o.Namespace == name.Namespace {
			return 0
		}
		return 1
	}
	all := slices.SortedFunc(slices.Values(c.Index.beside.Externals), func(a, b *v1alpha1.ExternalService) int {
		return cmp.Or(cmp.Compare(own(a), own(b)), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	for _, o := range all {
		if o.Visible(name.Namespace) {
			out.Services = append(out.Services, c.egressService(o))
		}
	}
	return out
}

// egressService answers what the callers of an ExternalService are told, policies included: they enforce those themselves, since
// nobody does on the other side.
func (c Compiler) egressService(o *v1alpha1.ExternalService) model.EgressService {
	s := model.EgressService{Name: model.External(o.Namespace, o.Name), Hosts: o.Spec.Hosts, Original: o.Spec.Resolution == v1alpha1.ResolutionOriginal}
	var ports []model.ServicePort
	for _, p := range o.Spec.Ports {
		proto, _ := model.ParseProtocol(p.Protocol)
		s.Ports = append(s.Ports, uint16(p.Port))
		ports = append(ports, model.ServicePort{Name: p.Name, Port: uint16(p.Port), Protocol: proto})
	}
	var rules model.Security
	for _, p := range c.Index.security.all {
		policy, ok := p.Object.(*v1alpha1.AuthorizationPolicy)
		if !ok || policy.Spec.Action == v1alpha1.ActionExternal {
			continue
		}
		sections, about := p.About(s.Name)
		numbers, whole := c.sections(ports, sections)
		if about && (whole || len(numbers) > 0) {
			c.authorization(&rules, p.name(), policy, numbers, ports)
		}
	}
	s.Policies = rules.Policies
	return s
}

// AboutExternal reports whether a policy names an ExternalService: then it bears on all callers.
func (p SecurityPolicy) AboutExternal() bool {
	return slices.ContainsFunc(p.targets().TargetRefs, func(r v1alpha1.PolicyTarget) bool { return r.Kind == v1alpha1.ExternalKind })
}

// ExternalStatus answers whether an ExternalService is in force: one of its hosts may be another one's for some callers.
func (c Compiler) ExternalStatus(o *v1alpha1.ExternalService) (addresses []string, accepted Condition) {
	if s, ok := c.Services.Service(model.External(o.Namespace, o.Name)); ok && o.Spec.Resolution != v1alpha1.ResolutionOriginal {
		for _, a := range []netip.Addr{s.VIP4, s.VIP6} {
			if a.IsValid() {
				addresses = append(addresses, a.String())
			}
		}
	}
	accepted = Condition{Type: "Accepted", True: true, Reason: "Accepted", Message: "called by workloads of " + strings.Join(o.Spec.ExportTo, ", ")}
	for _, other := range c.Index.beside.Externals {
		if other.Namespace == o.Namespace && other.Name < o.Name {
			for _, h := range o.Spec.Hosts {
				if slices.Contains(other.Spec.Hosts, h) {
					return addresses, Condition{Type: "Accepted", Reason: "HostTaken", Message: "host " + h + " is that of ExternalService " + other.Name + ", which comes first: remove it from one of them"}
				}
			}
		}
	}
	return addresses, accepted
}
