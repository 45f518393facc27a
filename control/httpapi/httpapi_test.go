package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/model"
)

const admin = "0123456789abcdef0123456789abcdef"

// view is a registry in which one workload of reviews, version v1, has registered.
type view struct{}

func (view) Services() []*registry.Service {
	var list []*registry.Service
	for _, name := range []string{"reviews", "reviews-v1"} {
		list = append(list, &registry.Service{Implicit: true, Service: model.Service{
			Name: model.ServiceName{Namespace: "default", Name: name}, Ports: []model.ServicePort{{Port: 9080}}}})
	}
	return list
}
func (view) Service(model.ServiceName) (*registry.Service, bool) { return nil, false }
func (view) ByAddress(netip.Addr) (*registry.Service, bool)      { return nil, false }
func (view) Endpoints(n model.PortName) (*model.Endpoints, bool) {
	return &model.Endpoints{Cluster: n, Endpoints: []model.Endpoint{{Workload: "reviews-1", Namespace: "default", Port: 9080}}}, true
}
func (view) Workloads() []*registry.Workload {
	return []*registry.Workload{{Name: "reviews-1", Namespace: "default"}}
}
func (view) Watch(func(registry.Change)) (stop func()) { return func() {} }

type plane struct {
	*testing.T
	store store.Store
	url   string
	late  []httpapi.Straggler
}

func start(t *testing.T) *plane {
	s := mem.New(0)
	t.Cleanup(func() { s.Close() })
	p := &plane{T: t, store: s}
	a := httpapi.New(httpapi.Config{Store: s, Registry: view{}, Tokens: token.New(s, func() []byte { return nil }), Admin: admin, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Info: httpapi.Info{TrustDomain: "tulle.local"},
		Behind: func(int64) []httpapi.Straggler { return p.late }})
	srv := httptest.NewServer(a.RemoteServer().Handler)
	t.Cleanup(srv.Close)
	p.url = srv.URL
	return p
}

// call answers the status and the body of a request with the admin token.
func (p *plane) call(method, path string, in any) (int, string) {
	p.Helper()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			p.Fatal(err)
		}
	}
	req, err := http.NewRequest(method, p.url+path, &body)
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		p.Fatal(err)
	}
	return resp.StatusCode, text.String()
}

func (p *plane) apply(req httpapi.ApplyRequest, texts ...string) (int, string) {
	p.Helper()
	for i, text := range texts {
		req.Files = append(req.Files, httpapi.File{Name: string(rune('a'+i)) + ".yaml", Text: text})
	}
	return p.call(http.MethodPost, "/v1/apply", req)
}

const service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\nspec: {ports: [{port: 80}]}\n"

func route(parent, backend string) string {
	return `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: "", kind: Service, name: ` + parent + `}]
  rules:
  - backendRefs: [` + backend + `]
`
}

func (p *plane) revision() int64 {
	rev, err := p.store.Revision(p.Context())
	if err != nil {
		p.Fatal(err)
	}
	return rev
}

// TestReferences: what a route of any kind refers to has to be there, in whatever namespace.
func TestReferences(t *testing.T) {
	p := start(t)
	grpc := "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g, namespace: shop}\nspec:\n  parentRefs: [{group: '', kind: Service, name: cart, namespace: default}]\n" +
		"  rules:\n  - filters:\n    - {type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 1}}}\n" +
		"    - {type: ExtensionRef, extensionRef: {group: tulle.dev, kind: FaultInjection, name: slow}}\n    backendRefs: [{name: cart, namespace: default, port: 82}]\n"
	code, text := p.apply(httpapi.ApplyRequest{}, service, grpc)
	for _, want := range []string{"Service cart has no port 82", "there is no Service copy in namespace shop", "there is no FaultInjection slow in namespace shop"} {
		if code != http.StatusUnprocessableEntity || !strings.Contains(text, want) {
			t.Errorf("%d, without %q: %s", code, want, text)
		}
	}
	fault := "apiVersion: tulle.dev/v1alpha1\nkind: FaultInjection\nmetadata: {name: slow, namespace: shop}\nspec: {delay: {duration: 1s}}\n"
	mirrored := "apiVersion: v1\nkind: Service\nmetadata: {name: copy, namespace: shop}\nspec: {ports: [{port: 1}]}\n"
	if code, text := p.apply(httpapi.ApplyRequest{}, service, strings.Replace(grpc, "82", "80", 1), fault, mirrored); code != 200 || strings.Count(text, `"created"`) != 4 {
		t.Fatalf("%d %s", code, text)
	}
	if code, text := p.apply(httpapi.ApplyRequest{}, strings.Replace(strings.Replace(grpc, "82", "80", 1), "name: g", "name: h", 1)); code != 200 {
		t.Errorf("a filter that is stored: %d %s", code, text)
	}
	tcp := "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {name: t}\nspec:\n  parentRefs: [{group: '', kind: Service, name: nobody}]\n  rules: [{backendRefs: [{name: cart, port: 80}]}]\n"
	if code, text := p.apply(httpapi.ApplyRequest{}, tcp); code != http.StatusUnprocessableEntity || !strings.Contains(text, "there is no Service nobody") {
		t.Errorf("%d %s", code, text)
	}
	if code, text := p.apply(httpapi.ApplyRequest{AllowUnresolved: true}, tcp); code != 200 {
		t.Errorf("%d %s", code, text)
	}
	if code, text := p.call(http.MethodGet, "/v1/objects/tcproutes/default/t", nil); code != 200 || !strings.Contains(text, `"apiVersion":"gateway.networking.k8s.io/v1"`) {
		t.Errorf("an older version of the API is not stored as the one that is run: %d %s", code, text)
	}
}

func TestApply(t *testing.T) {
	p := start(t)
	before := p.revision()
	if code, text := p.apply(httpapi.ApplyRequest{DryRun: true}, service); code != 200 || !strings.Contains(text, `"created"`) || p.revision() != before {
		t.Fatalf("dry run: %d %s", code, text)
	}
	for i, want := range []string{`"action":"created"`, `"action":"unchanged"`} {
		if code, text := p.apply(httpapi.ApplyRequest{}, service, route("cart", "{name: cart, port: 80}")); code != 200 || strings.Count(text, want) != 2 {
			t.Fatalf("apply %d: %d %s", i, code, text)
		}
	}
	if rev := p.revision(); rev != before+1 {
		t.Errorf("two objects of two applies took %d revisions", rev-before)
	}
	changed := strings.Replace(service, "port: 80", "port: 81", 1)
	if code, text := p.apply(httpapi.ApplyRequest{}, changed); code != 200 || !strings.Contains(text, `"configured"`) {
		t.Fatalf("%d %s", code, text)
	}
	_, text := p.call(http.MethodGet, "/v1/objects/service/default/cart", nil)
	if !strings.Contains(text, `"generation":2`) || !strings.Contains(text, `"resourceVersion":"3"`) || !strings.Contains(text, `"uid":"`) {
		t.Errorf("got %s", text)
	}
	// What was got can be applied, until somebody else has changed it.
	if code, out := p.apply(httpapi.ApplyRequest{}, text); code != 200 || !strings.Contains(out, `"unchanged"`) {
		t.Errorf("%d %s", code, out)
	}
	p.apply(httpapi.ApplyRequest{}, service)
	if code, out := p.apply(httpapi.ApplyRequest{}, text); code != 422 || !strings.Contains(out, "resourceVersion") {
		t.Errorf("%d %s", code, out)
	}
	if code, out := p.apply(httpapi.ApplyRequest{Delete: true}, service); code != 200 || !strings.Contains(out, `"deleted"`) {
		t.Errorf("%d %s", code, out)
	}
	if code, out := p.call(http.MethodGet, "/v1/objects/services/default/cart", nil); code != 404 {
		t.Errorf("%d %s", code, out)
	}
}

// TestApplyRefuses: nothing of what is refused is stored, not even the part of it that is right.
func TestApplyRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		texts []string
		want  string
	}{
		"unknown field":     {[]string{service, strings.Replace(service, "ports", "prots", 1)}, `b.yaml:4: Service/cart: spec.prots`},
		"unknown parent":    {[]string{service, route("nobody", "{name: cart, port: 80}")}, `b.yaml:5: HTTPRoute/r: spec.parentRefs[0].name: there is no Service nobody`},
		"unknown backend":   {[]string{service, route("cart", "{name: nobody, port: 80}")}, `b.yaml:7: HTTPRoute/r: spec.rules[0].backendRefs[0].name: there is no Service nobody`},
		"unknown port":      {[]string{service, route("cart", "{name: cart, port: 81}")}, `backendRefs[0].port: Service cart has no port 81: it has 80`},
		"registered port":   {[]string{route("reviews", "{name: reviews-v1, port: 1}")}, `Service reviews-v1 has no port 1: it has 9080`},
		"another namespace": {[]string{service, strings.Replace(route("cart", "{name: cart, port: 80}"), "{name: r}", "{name: r, namespace: shop}", 1)}, `there is no Service cart in namespace shop`},
		"in two files":      {[]string{service, service}, `b.yaml:1: Service/cart: is in a.yaml too`},
		"trust domain":      {[]string{"apiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {trustDomain: other}\n"}, `spec.trustDomain: is other, but the mesh CA is of tulle.local`},
		"nothing":           {[]string{"---\n"}, "there is no object in the files"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			before := p.revision()
			code, text := p.apply(httpapi.ApplyRequest{}, c.texts...)
			var e httpapi.Error
			if err := json.Unmarshal([]byte(text), &e); err != nil || code != 422 && code != 400 {
				t.Fatalf("%d %s", code, text)
			}
			if !strings.Contains(e.Error(), c.want) {
				t.Errorf("got  %s\nwant %s", e.Error(), c.want)
			}
			if p.revision() != before {
				t.Error("something was stored")
			}
		})
	}
	p := start(t)
	if code, text := p.apply(httpapi.ApplyRequest{AllowUnresolved: true}, route("nobody", "{name: nobody, port: 80}")); code != 200 {
		t.Errorf("--allow-unresolved: %d %s", code, text)
	}
	if code, text := p.apply(httpapi.ApplyRequest{}, route("reviews", "{name: reviews-v1, port: 9080}")); code != 200 {
		t.Errorf("Services that exist by their workloads: %d %s", code, text)
	}
}

func TestState(t *testing.T) {
	p := start(t)
	for path, want := range map[string]string{
		"/v1/status":                    `"name":"reviews-1"`,
		"/v1/endpoints?service=reviews": `[{"cluster":"reviews.default:9080"`,
		"/v1/objects/httproutes":        `"items":[]`,
		"/v1/wait?timeout=1s":           `"enforced":true`,
		"/v1/tokens":                    `[]`,
	} {
		if code, text := p.call(http.MethodGet, path, nil); code != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	for path, want := range map[string]int{
		"/v1/objects/pods": 400, "/v1/nothing": 404, "/v1/wait?revision=99": 400, "/v1/wait?timeout=x": 400, "/v1/stat": 503, "/v1/routes": 503, "/v1/retries": 503,
	} {
		if code, text := p.call(http.MethodGet, path, nil); code != want || !strings.Contains(text, `"message"`) {
			t.Errorf("%s: %d %s, want %d", path, code, text, want)
		}
	}
	p.late = []httpapi.Straggler{{Workload: "default/cart-1"}}
	if code, text := p.call(http.MethodGet, "/v1/wait?timeout=30ms", nil); code != 200 || !strings.Contains(text, "cart-1") {
		t.Errorf("%d %s", code, text)
	}
	if code, text := p.call(http.MethodPost, "/v1/tokens", httpapi.TokenRequest{Uses: -1}); code != 400 {
		t.Errorf("%d %s", code, text)
	}
	if code, text := p.call(http.MethodPost, "/v1/apply", map[string]int{"fils": 1}); code != 400 {
		t.Errorf("%d %s", code, text)
	}
}

// TestWho: on TCP only the admin token opens, on the unix socket this user; /v1/ready is for all.
func TestWho(t *testing.T) {
	p := start(t)
	for _, token := range []string{"", "Bearer ", "Bearer " + admin + "0", "Basic " + admin} {
		req, _ := http.NewRequest(http.MethodGet, p.url+"/v1/status", nil)
		req.Header.Set("Authorization", token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != 401 {
			t.Errorf("%q: %v, %v", token, resp.Status, err)
		}
		resp.Body.Close()
	}
	if resp, err := http.Get(p.url + "/v1/ready"); err != nil || resp.StatusCode != 200 {
		t.Error(resp, err)
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := mem.New(0)
	defer s.Close()
	srv := httpapi.New(httpapi.Config{Store: s, Registry: view{}, Tokens: token.New(s, func() []byte { return nil }), Admin: admin, Now: time.Now, Log: slog.New(slog.DiscardHandler)}).LocalServer()
	go srv.Serve(l)
	defer srv.Close()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := c.Get("http://tulle/v1/status")
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
}
