package resource_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/resource"
)

var (
	label    = rapid.StringMatching(`[a-z][a-z0-9-]{0,8}`)
	anyText  = rapid.String().Filter(func(s string) bool { return strings.ToValidUTF8(s, "") == s })
	duration = rapid.Custom(func(t *rapid.T) time.Duration { return time.Duration(rapid.Int64Range(0, 1<<50).Draw(t, "ns")) })
	portName = rapid.Custom(func(t *rapid.T) model.PortName {
		return model.PortName{
			Service: model.ServiceName{Namespace: label.Draw(t, "ns"), Name: label.Draw(t, "name")},
			Port:    rapid.Uint16Min(1).Draw(t, "port"),
		}
	})
	protocol = rapid.Custom(func(t *rapid.T) model.Protocol { return model.Protocol(rapid.IntRange(0, 7).Draw(t, "protocol")) })
	header   = rapid.Custom(func(t *rapid.T) model.Header {
		return model.Header{Name: rapid.StringMatching(`[A-Za-z-]{1,6}`).Draw(t, "name"), Value: anyText.Draw(t, "value")}
	})
	filter = rapid.Custom(func(t *rapid.T) model.Filter {
		return model.Filter{Kind: model.FilterKind(rapid.IntRange(0, 1).Draw(t, "kind")), Headers: model.HeaderChange{
			Set: list(t, header, 2), Add: list(t, header, 2), Remove: list(t, label, 2)}}
	})
	field = rapid.Custom(func(t *rapid.T) model.FieldMatch {
		if rapid.Bool().Draw(t, "regex") {
			return model.FieldMatch{Name: label.Draw(t, "name"), Value: rapid.SampledFrom([]string{".*", "a|b", "[0-9]+", ""}).Draw(t, "re"), Regex: true}
		}
		return model.FieldMatch{Name: label.Draw(t, "name"), Value: anyText.Draw(t, "value")}
	})
	match = rapid.Custom(func(t *rapid.T) model.Match {
		m := model.Match{PathKind: model.PathKind(rapid.IntRange(0, 2).Draw(t, "kind")),
			Method: rapid.SampledFrom([]string{"", "GET", "POST"}).Draw(t, "method"), Headers: list(t, field, 2), Query: list(t, field, 2)}
		if m.PathKind == model.PathRegex {
			m.Path = rapid.SampledFrom([]string{"/a.*", ".*", "/v[12]/x"}).Draw(t, "re")
		} else {
			m.Path = "/" + rapid.StringMatching(`[a-c/%]{0,5}`).Draw(t, "path")
		}
		return m
	})
	backend = rapid.Custom(func(t *rapid.T) model.Backend {
		b := model.Backend{Cluster: portName.Draw(t, "cluster"), Weight: rapid.Uint32Range(1, 1000).Draw(t, "weight"), Filters: list(t, filter, 2)}
		if b.Invalid = rapid.Bool().Draw(t, "invalid"); b.Invalid && rapid.Bool().Draw(t, "nameless") {
			b.Cluster = model.PortName{}
		}
		return b
	})
	route = rapid.Custom(func(t *rapid.T) model.Route {
		return model.Route{Name: anyText.Draw(t, "name"), Rule: rapid.IntRange(0, 20).Draw(t, "rule"), Match: match.Draw(t, "match"),
			Filters: list(t, filter, 3), Backends: list(t, backend, 3),
			Timeouts: model.Timeouts{Request: duration.Draw(t, "request"), Attempt: duration.Draw(t, "attempt")}}
	})
	addrPort = rapid.Custom(func(t *rapid.T) netip.AddrPort {
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "ip")
		if rapid.Bool().Draw(t, "v4") {
			b = b[:4]
		}
		a, _ := netip.AddrFromSlice(b)
		return netip.AddrPortFrom(a, rapid.Uint16Min(1).Draw(t, "port"))
	})
	endpoint = rapid.Custom(func(t *rapid.T) model.Endpoint {
		return model.Endpoint{Workload: label.Draw(t, "w"), Namespace: label.Draw(t, "ns"), Address: addrPort.Draw(t, "addr"),
			Port: rapid.Uint16Min(1).Draw(t, "port"), Identity: anyText.Draw(t, "id"), Version: anyText.Draw(t, "v"),
			Weight: rapid.Uint32Min(1).Draw(t, "weight"), Health: model.Health(rapid.IntRange(0, 2).Draw(t, "health")), Learned: protocol.Draw(t, "learned")}
	})
)

// list draws a slice that is nil, never empty: an empty list and none are the same on the wire.
func list[T any](t *rapid.T, g *rapid.Generator[T], limit int) []T {
	s := rapid.SliceOfN(g, 0, limit).Draw(t, "list")
	if len(s) == 0 {
		return nil
	}
	return s
}

// holds checks decode(encode(m)) == m and that encoding what was decoded gives the same bytes.
func holds[M any, P proto.Message](t *rapid.T, m *M, encode func(*M) (P, error), decode func(*anypb.Any) (*M, error)) {
	a := pack(t, m, encode)
	back, err := decode(a)
	if err != nil {
		t.Fatalf("decode: %v\n%+v", err, m)
	}
	if !reflect.DeepEqual(m, back) {
		t.Fatalf("encoded %+v\ndecoded %+v", m, back)
	}
	if b := pack(t, back, encode); string(a.Value) != string(b.Value) {
		t.Fatalf("encoded again it has other bytes: %+v", m)
	}
}

func pack[M any, P proto.Message](t interface{ Fatal(...any) }, m *M, encode func(*M) (P, error)) *anypb.Any {
	p, err := encode(m)
	if err != nil {
		t.Fatal(err)
	}
	a, err := resource.Pack(p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestRouteTableThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		holds(t, &model.RouteTable{Name: portName.Draw(t, "name"), Routes: list(t, route, 4)}, resource.EncodeRouteTable, resource.DecodeRouteTable)
	})
}

func TestClusterThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		holds(t, &model.Cluster{Name: portName.Draw(t, "name"), Protocol: protocol.Draw(t, "p"), ConnectTimeout: 1 + duration.Draw(t, "d")},
			resource.EncodeCluster, resource.DecodeCluster)
	})
}

func TestEndpointsThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &model.Endpoints{Cluster: portName.Draw(t, "name"), Endpoints: list(t, endpoint, 4)}
		holds(t, e, resource.EncodeEndpoints, resource.DecodeEndpoints)
	})
}

func TestServiceThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &model.Service{Name: portName.Draw(t, "name").Service}
		if rapid.Bool().Draw(t, "vip") {
			s.VIP4, s.VIP6 = netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("fd74:756c:6c65::9")
		}
		s.Ports = list(t, rapid.Custom(func(t *rapid.T) model.ServicePort {
			return model.ServicePort{Name: label.Draw(t, "n"), Port: rapid.Uint16Min(1).Draw(t, "p"), Protocol: protocol.Draw(t, "proto")}
		}), 3)
		holds(t, s, resource.EncodeService, resource.DecodeService)
	})
}

// The wire is Envoy's own: what Envoy would do with these messages is what the model says.
func TestRouteOnTheWire(t *testing.T) {
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}
	m, err := resource.EncodeRouteTable(&model.RouteTable{Name: name, Routes: []model.Route{{
		Name: "HTTPRoute/default/cart", Match: model.Match{Path: "/v1", Method: "GET"}, Backends: []model.Backend{{Cluster: name, Weight: 1}},
		Filters: []model.Filter{{Kind: model.FilterRequestHeaders, Headers: model.HeaderChange{Set: []model.Header{{Name: "X-A", Value: "100%"}}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ValidateAll(); err != nil {
		t.Errorf("Envoy would refuse it: %v", err)
	}
	r := m.VirtualHosts[0].Routes[0]
	if r.GetMatch().GetPathSeparatedPrefix() != "/v1" || r.GetMatch().Headers[0].GetName() != ":method" || r.GetRoute().GetCluster() != "cart.default:80" {
		t.Errorf("unexpected route %v", r)
	}
	if v := r.RequestHeadersToAdd[0].GetHeader().GetValue(); v != "100%%" {
		t.Errorf("value %q: Envoy would read a command operator", v)
	}
	if r.GetRoute().GetTimeout() == nil {
		t.Error("no timeout: Envoy would use its own 15 s")
	}
	if r.Metadata != nil {
		t.Errorf("facts %v for what Envoy can say", r.Metadata)
	}
}

func TestRefusedByName(t *testing.T) {
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}
	base := func() *routev3.RouteConfiguration {
		m, err := resource.EncodeRouteTable(&model.RouteTable{Name: name, Routes: []model.Route{{
			Name: "r", Match: model.Match{Path: "/"}, Backends: []model.Backend{{Cluster: name, Weight: 1}}}}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for want, change := range map[string]func(*routev3.Route){
		"routes[0].match.case_sensitive": func(r *routev3.Route) { r.Match.CaseSensitive = wrapperspb.Bool(false) },
		"routes[0].route.retry_policy":   func(r *routev3.Route) { r.GetRoute().RetryPolicy = &routev3.RetryPolicy{} },
		"routes[0].match.prefix":         func(r *routev3.Route) { r.Match.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/a"} },
		"routes[0].match.safe_regex": func(r *routev3.Route) {
			r.Match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "("}}
		},
		"routes[0].redirect":                      func(r *routev3.Route) { r.Action = &routev3.Route_Redirect{Redirect: &routev3.RedirectAction{}} },
		"routes[0].match.headers[0].invert_match": func(r *routev3.Route) { r.Match.Headers = []*routev3.HeaderMatcher{{Name: "a", InvertMatch: true}} },
		"routes[0].typed_per_filter_config":       func(r *routev3.Route) { r.TypedPerFilterConfig = map[string]*anypb.Any{"x": {}} },
		"routes[0].match":                         func(r *routev3.Route) { r.Match = nil },
		"routes[0].route.weighted_clusters":       func(r *routev3.Route) { r.GetRoute().ClusterSpecifier = nil },
		"routes[0].route.cluster":                 func(r *routev3.Route) { r.GetRoute().ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: "x"} },
	} {
		m := base()
		change(m.VirtualHosts[0].Routes[0])
		a, err := resource.Pack(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := resource.DecodeRouteTable(a); err == nil || !strings.HasPrefix(err.Error(), want+":") {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

// FuzzDecode: whatever bytes come, a decoder answers or refuses; what it answers can be sent on unchanged.
func FuzzDecode(f *testing.F) {
	rapidSeeds(f)
	f.Fuzz(func(t *testing.T, kind byte, p []byte) {
		switch kind % 4 {
		case 0:
			again(t, resource.TypeService, p, resource.DecodeService, resource.EncodeService)
		case 1:
			again(t, resource.TypeRouteTable, p, resource.DecodeRouteTable, resource.EncodeRouteTable)
		case 2:
			again(t, resource.TypeCluster, p, resource.DecodeCluster, resource.EncodeCluster)
		case 3:
			again(t, resource.TypeEndpoints, p, resource.DecodeEndpoints, resource.EncodeEndpoints)
		}
	})
}

func rapidSeeds(f *testing.F) {
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}
	hs := []model.Filter{{Kind: 1, Headers: model.HeaderChange{Add: []model.Header{{Name: "a", Value: "%"}}}}, {Kind: 0}}
	f.Add(byte(0), pack(f, &model.Service{Name: name.Service, VIP4: netip.MustParseAddr("198.18.0.1"), Ports: []model.ServicePort{{Port: 80}}}, resource.EncodeService).Value)
	f.Add(byte(1), pack(f, &model.RouteTable{Name: name, Routes: []model.Route{{Name: "r", Match: model.Match{Path: "/a/"}, Filters: hs,
		Backends: []model.Backend{{Cluster: name, Weight: 1, Invalid: true}, {Cluster: name, Weight: 2, Filters: hs}}}}}, resource.EncodeRouteTable).Value)
	f.Add(byte(2), pack(f, &model.Cluster{Name: name, ConnectTimeout: 5}, resource.EncodeCluster).Value)
	f.Add(byte(3), pack(f, &model.Endpoints{Cluster: name, Endpoints: []model.Endpoint{{Workload: "w", Address: netip.MustParseAddrPort("[::1]:8"), Port: 1, Weight: 1}}}, resource.EncodeEndpoints).Value)
}

func again[M any, P proto.Message](t *testing.T, typ string, p []byte, decode func(*anypb.Any) (*M, error), encode func(*M) (P, error)) {
	m, err := decode(&anypb.Any{TypeUrl: typ, Value: p})
	if err != nil {
		return
	}
	back, err := decode(pack(t, m, encode))
	if err != nil || !reflect.DeepEqual(m, back) {
		t.Fatalf("accepted %+v, then %+v, %v", m, back, err)
	}
}
