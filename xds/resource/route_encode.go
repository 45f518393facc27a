package resource

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
)

// EncodeRouteTable makes a route configuration. A mesh table gets one virtual host for every authority: the address
// that a program asked for has selected the service already.
func EncodeRouteTable(t *model.RouteTable) (*routev3.RouteConfiguration, error) {
	m := &routev3.RouteConfiguration{Name: t.ResourceName(), IgnorePortInHostMatching: t.IgnorePort}
	if t.AnyCluster {
		m.ValidateClusters = wrapperspb.Bool(false)
	}
	for i := range t.Hosts {
		vh := &routev3.VirtualHost{Name: t.Hosts[i].Name, Domains: t.Hosts[i].Domains}
		encodeFilters(t.Hosts[i].Filters, &vh.RequestHeadersToAdd, &vh.RequestHeadersToRemove, &vh.ResponseHeadersToAdd, &vh.ResponseHeadersToRemove)
		vh.Routes = encodeRoutes(t.Hosts[i].Routes)
		m.VirtualHosts = append(m.VirtualHosts, vh)
	}
	if len(t.Hosts) == 0 {
		m.VirtualHosts = []*routev3.VirtualHost{{Name: t.Name.String(), Domains: []string{"*"}, Routes: encodeRoutes(t.Routes)}}
	}
	return m, addFacts(m, t)
}

// addFacts reads what was written and adds what that does not say.
func addFacts(m *routev3.RouteConfiguration, t *model.RouteTable) error {
	got, err := readTable(m)
	if err != nil {
		return fmt.Errorf("route table %s: what was written is refused: %w", t.Name, err)
	}
	routes := func(want, got []model.Route, to []*routev3.Route) (err error) {
		for i := range to {
			if to[i].Metadata, err = withFacts(&want[i], &got[i]); err != nil {
				return fmt.Errorf("route table %s: routes[%d] %s: %w", t.Name, i, want[i].Name, err)
			}
		}
		return nil
	}
	if len(t.Hosts) == 0 {
		if err := routes(t.Routes, got.Routes, m.VirtualHosts[0].Routes); err != nil {
			return err
		}
		got.Routes = t.Routes
	}
	for i := range got.Hosts {
		if err := routes(t.Hosts[i].Routes, got.Hosts[i].Routes, m.VirtualHosts[i].Routes); err != nil {
			return err
		}
		got.Hosts[i].Routes = t.Hosts[i].Routes
	}
	if m.Metadata, err = withFacts(t, got); err != nil {
		return fmt.Errorf("route table %s: %w", t.Name, err)
	}
	return nil
}

func encodeRoutes(routes []model.Route) []*routev3.Route {
	var out []*routev3.Route
	for i := range routes {
		r := &routes[i]
		m := &routev3.Route{Name: r.Name, Match: encodeMatch(&r.Match)}
		encodeFilters(r.Filters, &m.RequestHeadersToAdd, &m.RequestHeadersToRemove, &m.ResponseHeadersToAdd, &m.ResponseHeadersToRemove)
		encodeAction(m, r)
		encodePerRoute(m, r)
		out = append(out, m)
	}
	return out
}

// noBackend is the status of a route without a backend (Gateway API).
const noBackend = 500

func encodeAction(m *routev3.Route, r *model.Route) {
	direct := func(status int, body []byte) {
		a := &routev3.DirectResponseAction{Status: uint32(status)}
		if len(body) > 0 {
			a.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: body}}
		}
		m.Action = &routev3.Route_DirectResponse{DirectResponse: a}
	}
	switch {
	case r.Direct != nil:
		direct(r.Direct.Status, r.Direct.Body)
	case r.Redirect != nil:
		if a := encodeRedirect(r.Redirect); a != nil {
			m.Action = &routev3.Route_Redirect{Redirect: a}
		} else {
			direct(r.Redirect.Status, nil)
		}
	case len(r.Backends) == 0 && r.FromField == "":
		direct(noBackend, nil)
	default:
		m.Action = &routev3.Route_Route{Route: encodeForward(r)}
	}
}

func encodeForward(r *model.Route) *routev3.RouteAction {
	a := &routev3.RouteAction{Timeout: durationpb.New(r.Timeouts.Request), RequestMirrorPolicies: encodeMirrors(r.Mirrors), AppendXForwardedHost: r.Rewrite.AppendXFHost, RetryPolicy: encodeRetry(r.Retry)}
	if r.Timeouts.Idle > 0 {
		a.IdleTimeout = durationpb.New(r.Timeouts.Idle)
	}
	if t := r.Timeouts; t.MaxStream > 0 || t.GRPCTimeout {
		a.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{}
		if t.MaxStream > 0 {
			a.MaxStreamDuration.MaxStreamDuration = durationpb.New(t.MaxStream)
		}
		if t.GRPCTimeout {
			a.MaxStreamDuration.GrpcTimeoutHeaderMax, a.MaxStreamDuration.GrpcTimeoutHeaderOffset = durationpb.New(t.GRPCMax), durationpb.New(t.GRPCOffset)
		}
	}
	encodePathChange(a, &r.Rewrite)
	switch {
	case r.Rewrite.Host != "":
		a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: r.Rewrite.Host}
	case r.Rewrite.AutoHost:
		a.HostRewriteSpecifier = &routev3.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)}
	}
	if r.Priority == model.PriorityHigh {
		a.Priority = corev3.RoutingPriority_HIGH
	}
	for _, k := range r.Hash {
		a.HashPolicy = append(a.HashPolicy, encodeHash(k))
	}
	for _, u := range r.Upgrades {
		a.UpgradeConfigs = append(a.UpgradeConfigs, &routev3.RouteAction_UpgradeConfig{UpgradeType: u})
	}
	encodeBackends(a, r)
	return a
}

func encodeBackends(a *routev3.RouteAction, r *model.Route) {
	if r.FromField != "" {
		a.ClusterSpecifier = &routev3.RouteAction_ClusterHeader{ClusterHeader: r.FromField}
		return
	}
	if b := &r.Backends[0]; len(r.Backends) == 1 && b.Weight == 1 && len(b.Filters) == 0 {
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: backendName(b)}
		return
	}
	wc := &routev3.WeightedCluster{}
	for i := range r.Backends {
		b := &r.Backends[i]
		c := &routev3.WeightedCluster_ClusterWeight{Name: backendName(b), Weight: wrapperspb.UInt32(b.Weight)}
		encodeFilters(b.Filters, &c.RequestHeadersToAdd, &c.RequestHeadersToRemove, &c.ResponseHeadersToAdd, &c.ResponseHeadersToRemove)
		wc.Clusters = append(wc.Clusters, c)
	}
	a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: wc}
}

// backendName answers a name that Envoy takes; that of a reference which does not resolve need not be one.
func backendName(b *model.Backend) string {
	if s := b.Cluster.String(); s != "" {
		return s
	}
	return "no_backend"
}

func encodeHash(k model.HashKey) *routev3.RouteAction_HashPolicy {
	m := &routev3.RouteAction_HashPolicy{Terminal: k.Terminal}
	switch k.Kind {
	case model.HashCookie:
		c := &routev3.RouteAction_HashPolicy_Cookie{Name: k.Name, Path: k.Path}
		if k.Generate {
			c.Ttl = durationpb.New(k.TTL)
		}
		m.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: c}
	case model.HashSourceIP:
		m.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}
	case model.HashQuery:
		m.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: k.Name}}
	case model.HashPath: // Envoy's nearest is all of the path
		m.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: ":path"}}
	default:
		m.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: k.Name}}
	}
	return m
}

type headerOption = corev3.HeaderValueOption

// encodeFilters writes sets, then adds. Envoy reads values as formats, so a percent sign is doubled.
func encodeFilters(fs []model.Filter, requestAdd *[]*headerOption, requestRemove *[]string, responseAdd *[]*headerOption, responseRemove *[]string) {
	for i := range fs {
		c, add, remove := &fs[i].Headers, requestAdd, requestRemove
		if fs[i].Kind == model.FilterResponseHeaders {
			add, remove = responseAdd, responseRemove
		}
		for _, h := range c.Set {
			*add = append(*add, option(h, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
		}
		for _, h := range c.Add {
			*add = append(*add, option(h, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
		}
		*remove = append(*remove, c.Remove...)
	}
}

func option(h model.Header, a corev3.HeaderValueOption_HeaderAppendAction) *headerOption {
	return &headerOption{
		Header:         &corev3.HeaderValue{Key: h.Name, Value: strings.ReplaceAll(h.Value, "%", "%%")},
		AppendAction:   a,
		KeepEmptyValue: h.Value == "",
	}
}

func percentOf(million uint32) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: million, Denominator: typev3.FractionalPercent_MILLION}
}
