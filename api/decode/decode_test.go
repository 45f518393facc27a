package decode_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

const canary = `# the canary
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: reviews
spec:
  parentRefs:
  - group: ""
    kind: Service
    name: reviews
    port: 9080
  rules:
  - matches:
    - path: {type: PathPrefix, value: /api}
      headers:
      - name: x-user
        value: alice
    backendRefs:
    - name: reviews-v1
      port: 9080
      weight: 90
    - {name: reviews-v2, port: 9080, weight: 10}
    timeouts:
      request: 2s
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop, labels: {app.kubernetes.io/name: reviews}}
spec:
  selector: {service: reviews}
  ports:
  - port: 9080
    appProtocol: http
    targetPort: web
`

func TestRead(t *testing.T) {
	docs, errs := decode.Read("shop.yaml", []byte(canary))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if len(docs) != 2 || docs[0].Name() != "HTTPRoute/reviews" || docs[1].Name() != "Service/reviews" {
		t.Fatalf("%d documents", len(docs))
	}
	r := docs[0].Object.(*v1alpha1.HTTPRoute)
	if r.Namespace != "default" || len(r.Spec.Rules) != 1 || *r.Spec.Rules[0].Matches[0].Headers[0].Type != v1alpha1.HeaderMatchExact ||
		*r.Spec.Rules[0].BackendRefs[1].Weight != 10 || *r.Spec.Rules[0].BackendRefs[0].Kind != "Service" {
		t.Errorf("%+v", r)
	}
	s := docs[1].Object.(*v1alpha1.Service)
	if s.Namespace != "shop" || s.Spec.Ports[0].TargetPort.StrVal != "web" || s.Spec.Ports[0].Protocol != "TCP" {
		t.Errorf("%+v", s)
	}
	if e := docs[0].Errorf("spec.rules[0].backendRefs[1].name", "no such Service %s", "x"); e.Error() !=
		"shop.yaml:22: HTTPRoute/reviews: spec.rules[0].backendRefs[1].name: no such Service x" {
		t.Error(e)
	}
}

// TestJSON: the same as JSON, with tabs, reads the same.
func TestJSON(t *testing.T) {
	first, _, _ := strings.Cut(canary, "---")
	var v any
	if err := yaml.Unmarshal([]byte(first), &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got, errs := decode.Read("a.json", text)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	want, _ := decode.Read("a.yaml", []byte(first))
	if a, b := dump(t, got[0].Object), dump(t, want[0].Object); a != b {
		t.Errorf("JSON\n%s\nYAML\n%s", a, b)
	}
}

func dump(t *testing.T, o v1alpha1.Object) string {
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestErrors(t *testing.T) {
	// change is what is replaced in the canary, by what; then the first error.
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown field":   {"backendRefs:", "backendRef:", `f:18: HTTPRoute/reviews: spec.rules[0].backendRef: is not a field: did you mean backendRefs?`},
		"wrong type":      {"port: 9080\n  rules", "port: web\n  rules", `f:11: HTTPRoute/reviews: spec.parentRefs[0].port: must be a whole number of at most 32 bits, this is the text "web"`},
		"number as text":  {"name: x-user", "name: 12", `f:16: HTTPRoute/reviews: spec.rules[0].matches[0].headers[0].name: must be text, this is the number 12: put it in quotes`},
		"label":           {"app.kubernetes.io/name: reviews", "v: 1", `f:28: Service/reviews: metadata.labels.v: must be text, this is the number 1: put it in quotes`},
		"duplicate key":   {"      weight: 90", "      weight: 90\n      weight: 80", `f:22: HTTPRoute/reviews: spec.rules[0].backendRefs[0].weight: is there twice, first on line 21: remove one`},
		"no kind":         {"kind: HTTPRoute\n", "", `f:2: kind: is missing: write one of Service, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, ReferenceGrant, FaultInjection, DirectResponse, TrafficPolicy, ExternalService, AuthorizationPolicy, AuthenticationPolicy, InferencePool, MeshConfig`},
		"no apiVersion":   {"apiVersion: v1\n", "", `f:26: apiVersion: is missing: a Service has for example apiVersion: v1`},
		"unknown kind":    {"kind: HTTPRoute", "kind: VirtualService", `f:3: kind: "VirtualService" is not supported: write one of Service, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, ReferenceGrant, FaultInjection, DirectResponse, TrafficPolicy, ExternalService, AuthorizationPolicy, AuthenticationPolicy, InferencePool, MeshConfig`},
		"old version":     {"k8s.io/v1", "k8s.io/v1alpha2", `f:2: HTTPRoute/reviews: apiVersion: "gateway.networking.k8s.io/v1alpha2" is not known for a HTTPRoute: write gateway.networking.k8s.io/v1`},
		"bad match type":  {"type: PathPrefix", "type: Prefix", `f:14: HTTPRoute/reviews: spec.rules[0].matches[0].path.type: "Prefix" is not a kind of match: write Exact, PathPrefix or RegularExpression`},
		"list for object": {"spec:\n  parentRefs:", "spec:\n- parentRefs:", `f:7: HTTPRoute/reviews: spec: must be an object, this is a list`},
		"object for list": {"  - port: 9080\n", "    port: 9080\n", `f:32: Service/reviews: spec.ports: must be a list, this is an object`},
		"syntax":          {"name: reviews\n    port", "name: [reviews\n    port", `f:9: this is not YAML: did not find expected ',' or ']'`},
		"anchor":          {"kind: Service\n    name", "kind: &s Service\n    name", `f:9: HTTPRoute/reviews: spec.parentRefs[0].kind: anchors and aliases are not supported: write the value out`},
		"not an object":   {"# the canary\n", "- a\n---\n", `f:1: a document must be an object with apiVersion, kind and metadata, this is a list`},
		"no name":         {"  name: reviews\nspec", "  labels: {}\nspec", `f:4: HTTPRoute/?: metadata.name: is missing: give the HTTPRoute a name`},
		"gateway":         {"kind: Service\n    name", "kind: Gateway\n    name", `f:9: HTTPRoute/reviews: spec.parentRefs[0].kind: is "Gateway": only routes of a Service are run, write {group: "", kind: Service}`},
		"no group":        {"  - group: \"\"\n    kind", "  - kind", `f:8: HTTPRoute/reviews: spec.parentRefs[0].group: is "gateway.networking.k8s.io": a Service is of the group "", write group: ""`},
		"backend no port": {"      port: 9080\n      weight", "      weight", `f:19: HTTPRoute/reviews: spec.rules[0].backendRefs[0].port: is missing: write the port of Service reviews-v1`},
		"bad duration":    {"2s", "2.5s", `f:24: HTTPRoute/reviews: spec.rules[0].timeouts.request: "2.5s" is not a duration: write for example 500ms, 2s or 1m30s`},
		"unsupported":     {"    timeouts:", "    filters: [{type: ExternalAuth}]\n    timeouts:", `f:23: HTTPRoute/reviews: spec.rules[0].filters[0].type: "ExternalAuth" is not supported as a filter: write RequestHeaderModifier, ResponseHeaderModifier, RequestRedirect, URLRewrite, RequestMirror, CORS or ExtensionRef`},
		"bad regex":       {"{type: PathPrefix, value: /api}", "{type: RegularExpression, value: '/(a'}", "f:14: HTTPRoute/reviews: spec.rules[0].matches[0].path.value: \"/(a\" is not a regular expression (RE2): missing closing ): `^(?:/(a)$`"},
		"port twice":      {"  - port: 9080\n", "  - {name: b, port: 9080}\n  - name: a\n    port: 9080\n", `f:34: Service/reviews: spec.ports[1].port: 9080 is used twice`},
		"load balancer":   {"  selector:", "  type: LoadBalancer\n  selector:", `f:30: Service/reviews: spec.type: "LoadBalancer" is not supported: write ClusterIP`},
		"there twice":     {"kind: Service\nmetadata: {name: reviews, namespace: shop", "kind: Service\nmetadata: {name: reviews}\nspec: {ports: [{port: 1}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: reviews", `f:31: Service/reviews: is in this file twice, first on line 26: remove one`},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(canary, c.old, c.new, 1)
			if text == canary {
				t.Fatal("nothing was replaced")
			}
			docs, errs := decode.Read("f", []byte(text))
			if len(docs) > 0 || len(errs) == 0 {
				t.Fatalf("%d documents, no error", len(docs))
			}
			if got := errs[0].Error(); !strings.HasPrefix(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestAllErrors: every error of a file is told, up to a bound, and nothing is answered.
func TestAllErrors(t *testing.T) {
	text := strings.Replace(canary, "weight: 90", "weigth: 90", 1)
	text = strings.Replace(text, "port: 9080\n    appProtocol: http", "port: 0\n    appProtocol: ftp", 1)
	_, errs := decode.Read("f", []byte(text))
	if len(errs) != 3 {
		t.Errorf("%d errors: %v", len(errs), errs)
	}
	var many strings.Builder
	for i := range 60 {
		fmt.Fprintf(&many, "---\napiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec: {prots: []}\n", i)
	}
	_, errs = decode.Read("f", []byte(many.String()))
	if len(errs) != decode.MaxErrors || !strings.Contains(errs.Error(), "more errors") {
		t.Errorf("%d errors", len(errs))
	}
}

// FuzzRead: no input breaks it; what it accepts it reads the same again from its own JSON; and what it accepts,
// the Kubernetes decoder accepts too.
func FuzzRead(f *testing.F) {
	f.Add(canary)
	f.Add("{\n\t\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}, \"spec\": {\"ports\": [{\"port\": 80}]}}")
	f.Add("apiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\n")
	f.Add(reviews)
	f.Add("a: &a [*a]\n")
	f.Add("? {a: b}\n: c\n")
	f.Add("apiVersion: v1\nkind: Service\nmetadata: {name: a, creationTimestamp: 2026-01-02}\nspec: {ports: [{port: 0x50}]}\n")
	f.Fuzz(func(t *testing.T, text string) {
		docs, errs := decode.Read("f", []byte(text))
		if len(errs) > 0 {
			for _, e := range errs {
				if e.Line < 1 || strings.Contains(e.Error(), "\n") {
					t.Fatalf("%q", e.Error())
				}
			}
			if len(docs) > 0 {
				t.Fatal("objects and errors")
			}
			return
		}
		for _, d := range docs {
			one := dump(t, d.Object)
			again, errs := decode.Read("f", []byte(one))
			if len(errs) > 0 {
				t.Fatalf("not read again: %v\n%s", errs, one)
			}
			if two := dump(t, again[0].Object); two != one {
				t.Fatalf("changed:\n%s\n%s", one, two)
			}
		}
	})
}
