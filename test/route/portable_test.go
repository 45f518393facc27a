package route_test

import (
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"go.yaml.in/yaml/v3"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/resource"
)

// TestPortable holds the condition Portable to the encoder: every part of every policy of the stories, as it is and each of its
// fields alone, is compiled and encoded, and what then travels as a fact of Tulle's only, so that clients which know Envoy's
// fields alone do not get it, is to be said; and nothing that they do get.
func TestPortable(t *testing.T) {
	tried, parts := 0, map[string]bool{}
	for _, text := range variants(t) {
		docs, errs := decode.Read("x.yaml", []byte(text))
		if len(errs) > 0 {
			continue // a field that means nothing without its neighbours
		}
		p := docs[0].Object.(*v1alpha1.TrafficPolicy)
		facts := ownFacts(t, p)
		said := ""
		for _, s := range withPolicy(t, p).PolicyStatus(p) {
			for _, c := range s.Conditions {
				if c.Type == "Portable" && !c.True {
					said = c.Message
				}
			}
		}
		if (len(facts) > 0) != (said != "") {
			t.Errorf("travels as facts: %v; Portable says %q of\n%s", facts, said, text)
		}
		tried++
		parts[p.Spec.Names()[0]] = true
	}
	if tried < 100 || len(parts) != 17 {
		t.Errorf("%d policies of %d parts were tried: too few", tried, len(parts))
	}
}

// variants answers policies with one part, on a Service and on a route, and with one field of that part.
func variants(t *testing.T) (out []string) {
	add := func(part string, v any) {
		for _, target := range []string{`{group: "", kind: Service, name: shop}`, `{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}`} {
			value, err := yaml.Marshal(map[string]any{part: v})
			if err != nil {
				t.Fatal(err)
			}
			text := "apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: shop}\nspec:\n  targetRefs: [" + target + "]\n  " +
				strings.ReplaceAll(strings.TrimSpace(string(value)), "\n", "\n  ") + "\n"
			if !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	for _, text := range objects(t) {
		var o struct {
			Kind string
			Spec map[string]any
		}
		if yaml.Unmarshal([]byte(text), &o) != nil || o.Kind != "TrafficPolicy" {
			continue
		}
		delete(o.Spec, "targetRefs")
		for part, v := range o.Spec {
			add(part, v)
			switch v := v.(type) {
			case map[string]any:
				for field, x := range v {
					add(part, map[string]any{field: x})
					rest := map[string]any{}
					for k, x := range v {
						if k != field {
							rest[k] = x
						}
					}
					add(part, rest)
				}
			case []any:
				for _, x := range v {
					add(part, []any{x})
				}
			}
		}
	}
	return out
}

// withPolicy compiles a shop with one route and one policy, nil for none.
func withPolicy(t *testing.T, p *v1alpha1.TrafficPolicy) compile.Compiler {
	docs, errs := decode.Read("r.yaml", []byte(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: shop}]
  rules: [{backendRefs: [{name: shop, port: 80}]}]
`))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	ix := compile.NewIndex([]compile.Route{{Object: docs[0].Object, Created: 1}})
	if p != nil {
		ix = ix.With([]compile.Policy{{Object: p, Created: 2}}, nil)
	}
	return compile.Compiler{Index: ix, Services: readServices(t, []byte("shop 80\n"))}
}

// ownFacts answers the values that a policy brings and that clients do not get who know Envoy's fields alone: those that read
// otherwise without the facts. What a workload's own proxy does (Inbound, Limits) is done whoever calls.
func ownFacts(t *testing.T, p *v1alpha1.TrafficPolicy) (out []string) {
	before, after := lost(t, withPolicy(t, nil)), lost(t, withPolicy(t, p))
	for path, v := range after {
		switch {
		case before[path] == v, strings.HasPrefix(path, "Inbound"), strings.HasPrefix(path, "Outside"), strings.Contains(path, ".Limits["):
		case path == "Upstream.Version": // which protocol is spoken has to be said beside other options
		case strings.HasSuffix(path, "].Session.Absolute") && strings.HasPrefix(v, " → "): // the lifetime of the cookie
		case strings.Contains(path, "].Retry") && *p.Spec.Retries.Attempts == 0: // none: others have none without a policy
		default:
			out = append(out, path+": "+v)
		}
	}
	slices.Sort(out)
	return out
}

// lost answers what of the shop's cluster and table reads otherwise without facts, "before → after".
func lost(t *testing.T, c compile.Compiler) map[string]string {
	name := model.PortName{Service: serviceName("shop"), Port: 80}
	cluster, _ := c.Cluster(name)
	m, err := resource.EncodeCluster(cluster)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	whole, bare := clusterOf(t, m), clusterOf(t, func() *clusterv3.Cluster { m.Metadata = nil; return m }())
	differing(out, compile.ClusterValues(whole), compile.ClusterValues(bare))
	table, _ := c.RouteTable(name)
	r, err := resource.EncodeRouteTable(table)
	if err != nil {
		t.Fatal(err)
	}
	full := tableOf(t, r)
	r.Metadata = nil
	for _, h := range r.GetVirtualHosts() {
		for _, one := range h.GetRoutes() {
			one.Metadata = nil
		}
	}
	without := tableOf(t, r)
	for i := range without.Routes {
		without.Routes[i].Name, without.Routes[i].Rule = full.Routes[i].Name, full.Routes[i].Rule
	}
	differing(out, compile.TableValues(full), compile.TableValues(without))
	return out
}

func differing(out, a, b map[string]string) {
	for p, v := range a {
		if b[p] != v {
			out[p] = v + " → " + b[p]
		}
	}
	for p, v := range b {
		if _, ok := a[p]; !ok {
			out[p] = " → " + v
		}
	}
}

func clusterOf(t *testing.T, m *clusterv3.Cluster) *model.Cluster {
	wire, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	out, err := resource.DecodeCluster(wire)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tableOf(t *testing.T, m *routev3.RouteConfiguration) *model.RouteTable {
	wire, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	out, err := resource.DecodeRouteTable(wire)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
