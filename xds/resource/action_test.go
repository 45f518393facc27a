package resource_test

import (
	"reflect"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	statefulv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/resource"
)

// wire encodes a table of one route, and reads it back.
func wire(t *testing.T, r model.Route) *routev3.Route {
	t.Helper()
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "cart"}, Port: 80}
	r.Name, r.Match.Path = "HTTPRoute/default/cart", "/a"
	if r.Redirect == nil {
		r.Backends = []model.Backend{{Cluster: name, Weight: 1}}
	}
	table := &model.RouteTable{Name: name, Routes: []model.Route{r}}
	m, err := resource.EncodeRouteTable(table)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ValidateAll(); err != nil {
		t.Errorf("Envoy would refuse it: %v", err)
	}
	a, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := resource.DecodeRouteTable(a); err != nil || !reflect.DeepEqual(back, table) {
		t.Errorf("%v\n%+v, want\n%+v", err, back, table)
	}
	return m.VirtualHosts[0].Routes[0]
}

// TestActionsOnTheWire: what routes do themselves is in Envoy's own fields, so that whoever else reads the resource does nearly
// the same.
func TestActionsOnTheWire(t *testing.T) {
	d := wire(t, model.Route{Redirect: &model.Redirect{Scheme: "https", Host: "b", Port: 8443, Change: model.PathPrefixed, Path: "/x/", Status: 308, StripQuery: true}}).GetRedirect()
	if d.GetSchemeRedirect() != "https" || d.GetHostRedirect() != "b" || d.GetPortRedirect() != 8443 || d.GetPrefixRewrite() != "/x" || d.GetResponseCode() != routev3.RedirectAction_PERMANENT_REDIRECT || !d.GetStripQuery() {
		t.Errorf("%v", d)
	}
	if d := wire(t, model.Route{Redirect: &model.Redirect{Change: model.PathFull, Path: "/x", Status: 302}}).GetRedirect(); d.GetPathRedirect() != "/x" {
		t.Errorf("%v", d)
	}
	if r := wire(t, model.Route{Rewrite: model.Rewrite{Prefix: "/x/", HasPrefix: true}}).GetRoute(); r.GetPrefixRewrite() != "/x" {
		t.Errorf("%v", r)
	}
	if r := wire(t, model.Route{Rewrite: model.Rewrite{Path: `/x\1`}}).GetRoute().GetRegexRewrite(); r.GetPattern().GetRegex() != "^/.*$" || r.GetSubstitution() != `/x\\1` {
		t.Errorf("%v", r)
	}
	copies := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "copies"}, Port: 80}
	r := wire(t, model.Route{Mirrors: []model.Mirror{{Cluster: copies, Fraction: 5000}, {Cluster: copies}, {Cluster: copies, Invalid: true}}}).GetRoute().GetRequestMirrorPolicies()
	if len(r) != 2 || r[0].GetCluster() != "copies.default:80" || r[0].GetRuntimeFraction().GetDefaultValue().GetNumerator() != 5000 || !r[1].GetDisableShadowHostSuffixAppend() || r[1].GetRuntimeFraction() != nil {
		t.Errorf("%v", r)
	}
}

// TestFiltersOnTheWire: likewise what needs filters, which nobody has to know.
func TestFiltersOnTheWire(t *testing.T) {
	m := wire(t, model.Route{
		CORS:    &model.CORS{Origins: []model.OriginMatch{{Exact: "https://a"}, {Wildcard: true, Prefix: "https://", Suffix: ".b"}, {Any: true}}, Methods: []string{"GET", "PUT"}, MaxAge: time.Minute, Credentials: true},
		Fault:   &model.Fault{Delay: time.Second, DelayShare: 10, Status: 503, AbortShare: 20, Rate: 4096, RateShare: 30, Headers: []model.FieldMatch{{Name: "x", Value: "y"}}},
		Session: &model.Session{Cookie: "s", Path: "/", Lifetime: time.Hour},
	})
	inner := func(name string, into proto.Message) {
		var f routev3.FilterConfig
		if err := m.GetTypedPerFilterConfig()[name].UnmarshalTo(&f); err != nil || !f.GetIsOptional() {
			t.Errorf("%s: %v %v", name, &f, err)
		}
		if err := f.GetConfig().UnmarshalTo(into); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var c corsv3.CorsPolicy
	inner("envoy.filters.http.cors", &c)
	if o := c.GetAllowOriginStringMatch(); len(o) != 3 || o[0].GetExact() != "https://a" || o[1].GetSafeRegex().GetRegex() != `https://.+\.b` || c.GetAllowMethods() != "GET, PUT" || c.GetMaxAge() != "60" {
		t.Errorf("%v", &c)
	}
	var f faultv3.HTTPFault
	inner("envoy.filters.http.fault", &f)
	if f.GetAbort().GetHttpStatus() != 503 || f.GetDelay().GetFixedDelay().AsDuration() != time.Second || f.GetResponseRateLimit().GetFixedLimit().GetLimitKbps() != 4 || len(f.GetHeaders()) != 1 {
		t.Errorf("%v", &f)
	}
	var s statefulv3.StatefulSessionPerRoute
	inner("envoy.filters.http.stateful_session", &s)
	if s.GetStatefulSession().GetSessionState().GetName() != "envoy.http.stateful_session.cookie" {
		t.Errorf("%v", &s)
	}
	// What Envoy would not take travels all the same.
	if m := wire(t, model.Route{Session: &model.Session{Cookie: "not a name"}}); m.GetTypedPerFilterConfig() != nil {
		t.Errorf("%v", m)
	}
	wire(t, model.Route{Fault: &model.Fault{Reset: true, AbortShare: 1}, Session: &model.Session{}})
}
