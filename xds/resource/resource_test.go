package resource_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/resource"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

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
		m := random[model.RouteTable](t)
		holds(t, &m, resource.EncodeRouteTable, resource.DecodeRouteTable)
	})
}

func TestClusterThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := random[model.Cluster](t)
		m.ConnectTimeout++
		holds(t, &m, resource.EncodeCluster, resource.DecodeCluster)
	})
}

func TestEndpointsThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := random[model.Endpoints](t)
		holds(t, &m, resource.EncodeEndpoints, resource.DecodeEndpoints)
	})
}

func TestServiceThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := random[model.Service](t)
		m.VIP4, m.VIP6 = netip.Addr{}, netip.Addr{}
		if rapid.Bool().Draw(t, "vip") {
			m.VIP4, m.VIP6 = netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("fd74:756c:6c65::9")
		}
		holds(t, &m, resource.EncodeService, resource.DecodeService)
	})
}

func TestSecurityThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := random[model.Security](t)
		m.Name = model.ServiceName{Namespace: "default", Name: "cart"}
		holds(t, &m, resource.EncodeSecurity, resource.DecodeSecurity)
	})
}

func TestTrustThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := random[model.Trust](t)
		holds(t, &m, resource.EncodeTrust, resource.DecodeTrust)
	})
}

// TestTextOfLines: facts bring no text that Envoy's fields would be refused for, and none is sent.
func TestTextOfLines(t *testing.T) {
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}
	table := func() *model.RouteTable {
		return &model.RouteTable{Name: name, Routes: []model.Route{{Match: model.Match{Path: "/"}, Backends: []model.Backend{{Cluster: name, Weight: 1}},
			FromField: "x-somewhere"}}}
	}
	for _, end := range []string{"\r", "\n", "\x00"} {
		bad := table()
		bad.Routes[0].FromField += end
		if _, err := resource.EncodeRouteTable(bad); err == nil || !strings.Contains(err.Error(), "line end") {
			t.Errorf("%q is sent: %v", end, err)
		}
		m, err := resource.EncodeRouteTable(table())
		if err != nil {
			t.Fatal(err)
		}
		facts, err := resource.Pack(&tullepb.Facts{Fields: []uint32{23}, Noun: &tullepb.Facts_Route{Route: &tullepb.Route{FromField: "x" + end}}})
		if err != nil {
			t.Fatal(err)
		}
		m.VirtualHosts[0].Routes[0].Metadata = &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{"tulle.v1": facts}}
		a, err := resource.Pack(m)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := resource.DecodeRouteTable(a); err == nil || !strings.Contains(err.Error(), "metadata.from_field: holds a line end") {
			t.Errorf("%q among the facts: taken as %+v, %v", end, back, err)
		}
	}
}

// TestSecurityInPart: a policy that says more than this version knows is refused, since it would be enforced in part.
func TestSecurityInPart(t *testing.T) {
	m := &tullepb.Security{Name: &tullepb.ServiceName{Namespace: "default", Name: "cart"}, Policies: []*tullepb.Policy{{Name: "p"}}}
	m.Policies[0].ProtoReflect().SetUnknown([]byte{0xa0, 0x06, 1}) // field 100
	a, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := resource.DecodeSecurity(a); err == nil {
		t.Errorf("taken as %+v", s)
	}
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
	if r.Metadata != nil || m.Metadata != nil {
		t.Errorf("facts %v %v for what Envoy can say", r.Metadata, m.Metadata)
	}
}

// TestRetryOnTheWire: Envoy gets a retry policy only where its own would not send again what may have been acted on.
func TestRetryOnTheWire(t *testing.T) {
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}
	on := model.RetryUntouched | model.RetryReset | model.RetryTimeout
	for want, r := range map[string]*model.Retry{
		"":                               {On: on, Attempts: 2},
		"connect-failure,refused-stream": {On: model.RetryUntouched, Attempts: 2},
		"connect-failure,refused-stream,reset,unavailable": {On: on | model.RetryGRPC, GRPC: 1 << 14, Attempts: 3, AnyMethod: true},
	} {
		m, err := resource.EncodeRouteTable(&model.RouteTable{Name: name, Routes: []model.Route{{Name: "r", Match: model.Match{Path: "/"}, Backends: []model.Backend{{Cluster: name, Weight: 1}}, Retry: r}}})
		if err != nil || m.ValidateAll() != nil {
			t.Fatalf("%v, %v", err, m.ValidateAll())
		}
		p := m.VirtualHosts[0].Routes[0].GetRoute().GetRetryPolicy()
		if p.GetRetryOn() != want || want != "" && p.GetNumRetries().GetValue() != r.Attempts {
			t.Errorf("%+v: got %v", r, p)
		}
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
	const r = "virtual_hosts[0].routes[0]"
	facts := func(f *tullepb.Facts) func(*routev3.Route) {
		return func(r *routev3.Route) {
			a, err := resource.Pack(f)
			if err != nil {
				t.Fatal(err)
			}
			r.Metadata = &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{"tulle.v1": a}}
		}
	}
	route := func(field uint32, r *tullepb.Route) func(*routev3.Route) {
		return facts(&tullepb.Facts{Fields: []uint32{field}, Noun: &tullepb.Facts_Route{Route: r}})
	}
	for want, change := range map[string]func(*routev3.Route){
		r + ".match.safe_regex.regex": func(r *routev3.Route) {
			r.Match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "("}}
		},
		r + ".match.filter_state":      func(r *routev3.Route) { r.Match.FilterState = []*matcherv3.FilterStateMatcher{{Key: "x"}} },
		r + ".match":                   func(r *routev3.Route) { r.Match = nil },
		r + ".route":                   func(r *routev3.Route) { r.GetRoute().ClusterSpecifier = nil },
		r + ".metadata":                facts(&tullepb.Facts{Noun: &tullepb.Facts_Cluster{Cluster: &tullepb.Cluster{}}}),
		r + ".metadata.match.path":     route(3, &tullepb.Route{Match: &tullepb.Match{PathKind: 2, Path: "("}}),
		r + ".metadata.priority":       route(15, &tullepb.Route{Priority: 9}),
		r + ".metadata.timeouts":       route(6, &tullepb.Route{Timeouts: &tullepb.Timeouts{Idle: -1}}),
		r + ".metadata.rule":           route(2, &tullepb.Route{Rule: -1}),
		r + ".route.weighted_clusters": route(5, &tullepb.Route{Backends: []*tullepb.Backend{{}}}),
		r + ".metadata.limits[0].match.headers[0].value": route(21, &tullepb.Route{Limits: []*tullepb.RateLimit{{
			Match: &tullepb.Match{Path: "/", Headers: []*tullepb.FieldMatch{{Name: "x", Regex: true, Value: "["}}}}}}),
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
		switch kind % 6 {
		case 0:
			again(t, resource.TypeService, p, resource.DecodeService, resource.EncodeService)
		case 1:
			again(t, resource.TypeRouteTable, p, resource.DecodeRouteTable, resource.EncodeRouteTable)
		case 2:
			again(t, resource.TypeCluster, p, resource.DecodeCluster, resource.EncodeCluster)
		case 3:
			again(t, resource.TypeEndpoints, p, resource.DecodeEndpoints, resource.EncodeEndpoints)
		case 4:
			again(t, resource.TypeSecurity, p, resource.DecodeSecurity, resource.EncodeSecurity)
		case 5:
			again(t, resource.TypeTrust, p, resource.DecodeTrust, resource.EncodeTrust)
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
	f.Add(byte(4), pack(f, &model.Security{Name: name.Service, Policies: []model.Policy{{Name: "p", Action: model.ActionDeny, Rules: []model.PolicyRule{{
		Name: "r", From: []model.PolicySource{{NotIPs: []string{"10.0.0.0/8"}}}}}}}}, resource.EncodeSecurity).Value)
	f.Add(byte(5), pack(f, &model.Trust{Stage: 1, Bundles: []model.TrustBundle{{TrustDomain: "tulle.local", Roots: [][]byte{{1}}}}}, resource.EncodeTrust).Value)
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

// TestBalancingOnTheWire: foreign clients get localities with their weights, slow start and weights by reports.
func TestBalancingOnTheWire(t *testing.T) {
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}
	ep := func(n byte, locality string) model.Endpoint {
		return model.Endpoint{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 80), Weight: 1, Locality: locality}
	}
	e, err := resource.EncodeEndpoints(&model.Endpoints{Cluster: name, Endpoints: []model.Endpoint{ep(1, "eu/1/"), ep(2, "eu/2/"), ep(3, "us/1/")},
		Localities: []model.LocalityWeight{{Locality: "eu/1", Weight: 3}, {Locality: "eu/2/", Weight: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint32{3, 1, 0} {
		if l := e.Endpoints[i]; l.GetLoadBalancingWeight().GetValue() != want || l.GetLocality().GetRegion() == "" {
			t.Errorf("locality %d: %v", i, l)
		}
	}
	c, err := resource.EncodeCluster(&model.Cluster{Name: name, ConnectTimeout: time.Second, Balancing: model.Balancing{SlowStart: model.SlowStart{Window: time.Minute},
		Locality: model.LocalityOptions{Mode: model.LocalityWeighted}}})
	if err != nil {
		t.Fatal(err)
	}
	if p := c.GetLoadBalancingPolicy().GetPolicies(); len(p) != 1 || p[0].GetTypedExtensionConfig().GetName() != "envoy.load_balancing_policies.least_request" || c.GetLbPolicy() != clusterv3.Cluster_LEAST_REQUEST {
		t.Errorf("%v", c)
	}
}

// TestConditionOnCallersLabels: 4 was the kind of conditions on the caller's labels, which no proxy knows; a policy with one is refused.
func TestConditionOnCallersLabels(t *testing.T) {
	m := &tullepb.Security{Name: &tullepb.ServiceName{Namespace: "default", Name: "cart"}, Policies: []*tullepb.Policy{{Name: "p",
		Rules: []*tullepb.PolicyRule{{Name: "r", When: []*tullepb.PolicyCondition{{Kind: 4, Name: "version"}}}}}}}
	a, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := resource.DecodeSecurity(a); err == nil || !strings.Contains(err.Error(), "kind: 4 is not known to this version") {
		t.Errorf("%+v, %v", s, err)
	}
}
