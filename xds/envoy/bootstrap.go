package envoy

import (
	"net/netip"
	"slices"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tulle-mesh/tulle/model"
)

// Bootstrap reads a whole bootstrap.
func Bootstrap(m *bootstrapv3.Bootstrap) (*model.Bootstrap, error) {
	if err := known("", m); err != nil {
		return nil, err
	}
	b := &model.Bootstrap{}
	var err error
	if b.Node, err = node("node", m.GetNode()); err != nil {
		return nil, err
	}
	if m.GetAdmin().GetAddress() != nil {
		b.Admin = &model.Admin{}
		if b.Admin.Address, err = address("admin.address", m.GetAdmin().GetAddress()); err != nil {
			return nil, err
		}
		// Whoever writes an address that is not a loopback one has configured it.
		b.Admin.Open = !b.Admin.Address.Addr().IsLoopback()
		if b.Admin.AccessLogs, err = accessLogs("admin.access_log", m.GetAdmin().GetAccessLog()); err != nil {
			return nil, err
		}
	} else if len(m.GetAdmin().GetAccessLog()) > 0 {
		return nil, refuse("admin.access_log", "needs admin.address")
	}
	if err := static(m.GetStaticResources(), b); err != nil {
		return nil, err
	}
	if err := dynamic(m.GetDynamicResources(), b); err != nil {
		return nil, err
	}
	return b, whole(b)
}

// whole refuses references to what nobody will ever tell.
func whole(b *model.Bootstrap) error {
	const needs = "needs dynamic_resources.ads_config"
	if b.ADS != nil {
		for i := range b.Clusters {
			c := &b.Clusters[i]
			if c.Name != b.ADS.Cluster {
				continue
			}
			if c.Upstream.Version != model.UpstreamHTTP2 {
				return refuse(at("static_resources.clusters", i), "carries gRPC and needs http2_protocol_options")
			}
			return nil
		}
		return refuse("dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name", "%q is not one of static_resources.clusters", clip(b.ADS.Cluster.String()))
	}
	for i := range b.Clusters {
		p := at("static_resources.clusters", i)
		if b.Clusters[i].Discovery == model.DiscoveryEDS {
			return refuse(join(p, "eds_cluster_config"), needs)
		}
		if t := b.Clusters[i].TLS; t != nil && !told(b, t.Certificates, t.Validation) {
			return refuse(join(p, "transport_socket"), "names a secret that is not one of static_resources.secrets and "+needs)
		}
	}
	for i := range b.Listeners {
		l := &b.Listeners[i]
		chains := l.Chains
		if l.Default != nil {
			chains = append(slices.Clip(chains), *l.Default)
		}
		for k, c := range chains {
			p := at(at("static_resources.listeners", i)+".filter_chains", k)
			if k == len(l.Chains) {
				p = at("static_resources.listeners", i) + ".default_filter_chain"
			}
			if c.HTTP != nil && c.HTTP.Routes == nil {
				return refuse(p+".filters[0].typed_config.rds", needs)
			}
			if c.HTTP != nil && c.HTTP.Routes != nil && !c.HTTP.Routes.AnyCluster {
				if err := namesClusters(p+".filters[0].typed_config.route_config", b, c.HTTP.Routes); err != nil {
					return err
				}
			}
			if c.TLS != nil && !told(b, c.TLS.Certificates, c.TLS.Validation) {
				return refuse(p+".transport_socket", "names a secret that is not one of static_resources.secrets and "+needs)
			}
		}
	}
	return nil
}

// namesClusters refuses a route to a cluster that nobody will ever tell of.
func namesClusters(path string, b *model.Bootstrap, t *model.RouteTable) error {
	for i, h := range t.Hosts {
		for k, r := range h.Routes {
			for _, to := range r.Backends {
				if !slices.ContainsFunc(b.Clusters, func(c model.Cluster) bool { return c.Name == to.Cluster }) {
					return refuse(at(at(path+".virtual_hosts", i)+".routes", k)+".route", "%q is not one of static_resources.clusters", clip(to.Cluster.String()))
				}
			}
			for _, to := range r.Mirrors {
				if !slices.ContainsFunc(b.Clusters, func(c model.Cluster) bool { return c.Name == to.Cluster }) {
					return refuse(at(at(path+".virtual_hosts", i)+".routes", k)+".route.request_mirror_policies", "%q is not one of static_resources.clusters", clip(to.Cluster.String()))
				}
			}
		}
	}
	return nil
}

// told reports whether every secret that is named is static.
func told(b *model.Bootstrap, certificates []model.SecretRef, v *model.Validation) bool {
	refs := certificates
	if v != nil {
		refs = append(slices.Clip(refs), v.Roots, v.CRL)
	}
	for _, r := range refs {
		if r.SDS != "" && !slices.ContainsFunc(b.Secrets, func(s model.Secret) bool { return s.Name == r.SDS }) {
			return false
		}
	}
	return true
}

func static(m *bootstrapv3.Bootstrap_StaticResources, b *model.Bootstrap) error {
	const path = "static_resources"
	names := map[string]bool{}
	for i, c := range m.GetClusters() {
		p := at(path+".clusters", i)
		cluster, e, err := Cluster(p, c)
		if err != nil {
			return err
		}
		if names[c.GetName()] {
			return refuse(join(p, "name"), "%q is the name of another cluster", clip(c.GetName()))
		}
		names[c.GetName()] = true
		b.Clusters = append(b.Clusters, *cluster)
		if e != nil {
			b.Endpoints = append(b.Endpoints, *e)
		}
	}
	names = map[string]bool{}
	taken := map[netip.AddrPort]string{}
	for i, l := range m.GetListeners() {
		p := at(path+".listeners", i)
		listener, err := Listener(p, l)
		if err != nil {
			return err
		}
		if names[listener.Name] {
			return refuse(join(p, "name"), "%q is the name of another listener", clip(listener.Name))
		}
		names[listener.Name] = true
		for _, a := range listener.Addresses {
			if other, ok := taken[a]; ok && a.Port() != 0 {
				return refuse(join(p, "address"), "%s is an address of listener %s", a, clip(other))
			}
			taken[a] = listener.Name
		}
		b.Listeners = append(b.Listeners, listener)
	}
	for i, s := range m.GetSecrets() {
		secret, err := Secret(at(path+".secrets", i), s)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(b.Secrets, func(s model.Secret) bool { return s.Name == secret.Name }) {
			return refuse(at(path+".secrets", i), "%q is the name of another secret", clip(secret.Name))
		}
		b.Secrets = append(b.Secrets, *secret)
	}
	return nil
}

func dynamic(m *bootstrapv3.Bootstrap_DynamicResources, b *model.Bootstrap) error {
	const path = "dynamic_resources"
	if m == nil {
		return nil
	}
	b.LDS, b.CDS = m.GetLdsConfig() != nil, m.GetCdsConfig() != nil
	if b.LDS {
		if err := overADS(path+".lds_config", m.GetLdsConfig()); err != nil {
			return err
		}
	}
	if b.CDS {
		if err := overADS(path+".cds_config", m.GetCdsConfig()); err != nil {
			return err
		}
	}
	c := m.GetAdsConfig()
	if c == nil {
		return refuse(path+".ads_config", "is missing")
	}
	ads, err := adsConfig(path+".ads_config", c)
	if err != nil {
		return err
	}
	for i, s := range []*corev3.ConfigSource{m.GetCdsConfig(), m.GetLdsConfig()} {
		if t := s.GetInitialFetchTimeout(); t != nil {
			p := path + []string{".cds_config", ".lds_config"}[i] + ".initial_fetch_timeout"
			if ads.InitialFetch, err = duration(p, t, 0); err != nil {
				return err
			}
			if ads.InitialFetch == 0 {
				ads.InitialFetch = forever
			}
		}
	}
	b.ADS = ads
	return nil
}

func adsConfig(path string, c *corev3.ApiConfigSource) (*model.ADS, error) {
	a := &model.ADS{Delta: c.GetApiType() == corev3.ApiConfigSource_DELTA_GRPC, InitialFetch: 15 * time.Second}
	if !a.Delta && c.GetApiType() != corev3.ApiConfigSource_GRPC {
		return nil, refuse(join(path, "api_type"), "%s %s", c.GetApiType(), notRun)
	}
	if err := version3(join(path, "transport_api_version"), c.GetTransportApiVersion()); err != nil {
		return nil, err
	}
	if len(c.GetGrpcServices()) != 1 {
		return nil, refuse(join(path, "grpc_services"), "%d of them; Tulle runs exactly one", len(c.GetGrpcServices()))
	}
	p := at(join(path, "grpc_services"), 0)
	s := c.GetGrpcServices()[0]
	if s.GetEnvoyGrpc() == nil {
		return nil, refuse(join(p, "envoy_grpc"), "is missing")
	}
	a.Cluster = model.Free(s.GetEnvoyGrpc().GetClusterName())
	for i, h := range s.GetInitialMetadata() {
		if !token(h.GetKey()) {
			return nil, refuse(join(at(join(p, "initial_metadata"), i), "key"), "%q is not the name of a field", clip(h.GetKey()))
		}
		a.Headers = append(a.Headers, model.Header{Name: h.GetKey(), Value: h.GetValue()})
	}
	if a.Cluster.Service.Name == "" {
		return nil, refuse(join(p, "envoy_grpc.cluster_name"), "is missing")
	}
	a.Authority = orText(s.GetEnvoyGrpc().GetAuthority(), s.GetEnvoyGrpc().GetClusterName())
	return a, nil
}

func node(path string, m *corev3.Node) (model.Node, error) {
	n := model.Node{ID: m.GetId(), Cluster: m.GetCluster()}
	if l := m.GetLocality(); l != nil {
		n.Locality = l.GetRegion() + "/" + l.GetZone() + "/" + l.GetSubZone()
	}
	if md := m.GetMetadata(); md != nil {
		b, err := protojson.Marshal(md)
		if err != nil {
			return n, refuse(join(path, "metadata"), "%s", clip(err.Error()))
		}
		n.Metadata = b
	}
	return n, nil
}

// Secret reads a secret as SDS brings it.
func Secret(path string, m *tlsv3.Secret) (*model.Secret, error) {
	if err := known(path, m); err != nil {
		return nil, err
	}
	if m.GetName() == "" {
		return nil, refuse(join(path, "name"), "is missing")
	}
	s := &model.Secret{}
	switch t := m.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		c, err := certificate(join(path, "tls_certificate"), t.TlsCertificate)
		if err != nil {
			return nil, err
		}
		s = c
	case *tlsv3.Secret_ValidationContext:
		p := join(path, "validation_context")
		v, err := validation(p, t.ValidationContext)
		if err != nil {
			return nil, err
		}
		if v.System || v.AllowExpired || v.AcceptUntrusted || len(v.SANs)+len(v.Hashes)+len(v.SPKI) > 0 {
			return nil, refuse(p, "a secret has trusted_ca and crl only; put the rest in default_validation_context")
		}
		if v.Roots.Inline != nil {
			s = v.Roots.Inline
		}
		if v.CRL.Inline != nil {
			s.CRL = v.CRL.Inline.CRL
		}
	default:
		return nil, refuse(path, "is neither tls_certificate nor validation_context")
	}
	s.Name = m.GetName()
	return s, nil
}
