package compile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// guarded answers a compiler with the service reviews.default, on ports 80 and 81, and what is written.
func guarded(t *testing.T, text string) compile.Compiler {
	t.Helper()
	docs, errs := decode.Read("guard.yaml", []byte(text))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var edits []compile.Edit
	for i := range docs {
		edits = append(edits, compile.Edit{Object: docs[i].Object})
	}
	name := model.ServiceName{Namespace: "default", Name: "reviews"}
	c := compile.Compiler{Index: compile.NewIndex(nil), Services: one{&registry.Service{Service: model.Service{Name: name, Ports: []model.ServicePort{{Port: 80}, {Port: 81}}}}}}
	return c.Edited(edits)
}

// verdict is what is decided, in short.
func verdict(d *compile.Decision) string {
	s := "allowed"
	if !d.Allowed {
		s = "denied"
	}
	for _, x := range []string{fmt.Sprint(d.Status), d.Policy, d.Rule, d.Why} {
		if x != "" && x != "0" {
			s += " | " + x
		}
	}
	return s
}

// decides asks each question, and holds the beginning of what is said about it.
func decides(t *testing.T, c compile.Compiler, all []asked) {
	t.Helper()
	for _, one := range all {
		q := one.q
		if q.To == "" {
			q.To, q.Port = "reviews", 80
		}
		q.Revoked = func(id string) string {
			if id == "spiffe://tulle.local/ns/default/sa/gone" {
				return "revoked"
			}
			return ""
		}
		said := ""
		if list, err := c.Decide(&q, nil); err != nil {
			said = err.Error()
		} else if said = verdict(&list[0]); len(list) != 1 {
			t.Errorf("%+v: %+v", q, list)
		}
		if !strings.HasPrefix(said, one.want) {
			t.Errorf("%+v:\n%s, not\n%s", one.q, said, one.want)
		}
	}
}

type asked struct {
	q    compile.Question
	want string
}

const (
	readers = `apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: readers}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews, sectionName: "80"}]
  rules:
  - {name: read, from: [{serviceAccounts: [web]}], to: [{methods: [GET], paths: ["/reviews/{id}"]}]}
  - {name: files, to: [{paths: ["/a*"]}]}
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: noadmin}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews, sectionName: "80"}]
  action: Deny
  rules:
  - {name: admin, to: [{paths: [/admin]}]}
`
	proofs = `apiVersion: tulle.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: proof}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  mtls: {mode: Permissive, ports: [{port: "81", mode: Strict}]}
  jwt:
  - {issuer: "https://issuer.example", jwksURL: "https://issuer.example/keys", required: true}
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: alice}
spec:
  targetRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - {name: alice, from: [{requestPrincipals: ["https://issuer.example/alice"]}]}
`
)

// TestDecidePaths: a path is judged as the proxy judges it, and refused where the proxy refuses it.
func TestDecidePaths(t *testing.T) {
	get := func(path string) compile.Question { return compile.Question{From: "web", Method: "GET", Path: path} }
	elsewhere := get("/a%2fb")
	elsewhere.To, elsewhere.Port = "reviews", 81
	read, admin := "allowed | AuthorizationPolicy/default/readers | read", "denied | 403 | AuthorizationPolicy/default/noadmin | admin"
	decides(t, guarded(t, readers), []asked{
		{get("/reviews/2"), read}, {get("/reviews//2"), read}, {get("/%72eviews/2?x=/.."), read}, {get("/reviews/../reviews/2"), read},
		{get("/admin"), admin}, {get("/%61dmin"), admin}, {get("/x/..//admin?a"), admin},
		{get("/a%2fb"), "denied | 400 | path: escaped slash or backslash"}, {get("/a;b"), "denied | 400 | path: path parameters"}, {get("/a?b=%2f;"), "allowed"},
		{elsewhere, "allowed"}, // no policy looks at paths there, so the proxy does not either
	})
}

// TestDecideProofs: what is refused before policies are asked is told, with who says so.
func TestDecideProofs(t *testing.T) {
	const policy, believes = "AuthenticationPolicy/default/proof", "AuthenticationPolicy/default/proof jwt[0]"
	get := compile.Question{From: "web", Method: "GET"}
	with := func(change func(*compile.Question)) compile.Question { q := get; change(&q); return q }
	c := guarded(t, proofs)
	decides(t, c, []asked{
		{get, "denied | 401 | " + believes + " | a token is required"},
		{with(func(q *compile.Question) { q.Token = "https://issuer.example/alice" }), "allowed | AuthorizationPolicy/default/alice | alice"},
		{with(func(q *compile.Question) { q.Token = "https://issuer.example/bob" }), "denied | 403"},
		{with(func(q *compile.Question) { q.Token = "https://issuer.example.org/alice" }), "denied | 401 | " + believes + " | the token is of another issuer"},
		{with(func(q *compile.Question) { q.Method = "" }), "denied"},
		{with(func(q *compile.Question) { q.To, q.Port, q.From = "reviews", 81, "" }), "denied | 403 | " + policy + " | mTLS mode Strict"},
		{with(func(q *compile.Question) { q.To, q.Port, q.From, q.Method = "reviews", 81, "", "" }), "denied | " + policy + " | mTLS mode Strict"},
		{with(func(q *compile.Question) { q.To, q.Port = "reviews", 81 }), "denied | 401"},
		{with(func(q *compile.Question) { q.From = "gone" }), "denied | revocation of spiffe://tulle.local/ns/default/sa/gone | revoked"},
	})
	preflight := []compile.NameValue{{Name: "Origin", Value: "https://x"}, {Name: "Access-Control-Request-Method", Value: "GET"}}
	decides(t, guarded(t, strings.Split(proofs, "---")[0]), []asked{
		{with(func(q *compile.Question) { q.Method, q.Headers = "OPTIONS", preflight }), "allowed"},
		{with(func(q *compile.Question) { q.Method = "OPTIONS" }), "denied | 401"},
		{with(func(q *compile.Question) { q.Method = "" }), "denied | policies look at the requests of this port"},
	})
	// Where nobody's tokens are believed, nobody looks at one.
	d, err := guarded(t, strings.Split(proofs, "---")[1]).Decide(&compile.Question{To: "reviews", Port: 80, Method: "GET", Token: "https://issuer.example/alice"}, nil)
	if err != nil || d[0].Allowed || len(d[0].Notes) != 1 || !strings.Contains(d[0].Notes[0], "no AuthenticationPolicy") {
		t.Errorf("%v, %+v", err, d)
	}
}

// TestDecideAlias: a caller of an alias of the trust domain is known in the mesh's own.
func TestDecideAlias(t *testing.T) {
	mesh := "---\napiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {trustDomain: new.example, trustDomainAliases: [old.example]}\n"
	ask := func(from string) compile.Question {
		return compile.Question{From: from, Method: "GET", Path: "/reviews/2"}
	}
	decides(t, guarded(t, readers+mesh), []asked{
		{ask("web"), "allowed"}, {ask("spiffe://old.example/ns/default/sa/web"), "allowed"}, {ask("spiffe://other.example/ns/default/sa/web"), "denied | 403"},
	})
}

// TestDecideNonsense: what nobody can be or send is refused, with the flag and an example.
func TestDecideNonsense(t *testing.T) {
	for _, one := range []struct {
		q    compile.Question
		want string
	}{
		{compile.Question{Method: "GET", Path: "nope"}, `--path "nope" does not begin with a slash: write for example --path /items/7`},
		{compile.Question{Method: "GET", Path: "/a b"}, `--path "/a b" has a space`},
		{compile.Question{Method: "OPTIONS", Path: "*"}, ""},
		{compile.Question{From: "a b"}, `--from "a b" names no service account: write for example --from cart`},
		{compile.Question{From: "shop/"}, `--from "shop/" names no service account`},
		{compile.Question{Method: "G T"}, `--method "G T" is none: write for example --method GET`},
		{compile.Question{Method: "GET", Token: "foo"}, `--token "foo" is not issuer/subject: write for example --token https://`},
		{compile.Question{Method: "GET", Token: "https://foo"}, `--token "https://foo" is not issuer/subject`},
		{compile.Question{Method: "GET", Token: "accounts.example/17"}, ""},
		{compile.Question{Method: "GET", Host: "a b"}, `--host "a b" is none`},
		{compile.Question{ServerName: "a b"}, `--sni "a b" is no server name`},
		{compile.Question{Method: "GET", Headers: []compile.NameValue{{Name: "a b"}}}, `--header "a b" is no name`},
		{compile.Question{IP: "nowhere"}, `--ip "nowhere" is not an address: write for example --ip 10.0.0.9`},
	} {
		one.q.To, one.q.Port = "reviews", 80
		_, err := guarded(t, "").Decide(&one.q, nil)
		if one.want == "" && err != nil || one.want != "" && (err == nil || !strings.HasPrefix(err.Error(), one.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%+v: %v", one.q, err)
		}
	}
}

const outside = `apiVersion: tulle.dev/v1alpha1
kind: ExternalService
metadata: {name: files}
spec:
  hosts: [files.example.com]
  ports: [{port: 80, name: web, protocol: http}, {port: 443, name: safe, protocol: tls}]
---
apiVersion: tulle.dev/v1alpha1
kind: ExternalService
metadata: {name: pattern}
spec: {hosts: ["*.example.org"], ports: [{port: 443, protocol: tls}]}
---
apiVersion: tulle.dev/v1alpha1
kind: ExternalService
metadata: {name: theirs, namespace: shop}
spec: {hosts: [theirs.example.com], ports: [{port: 443, protocol: tls}]}
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: files}
spec:
  targetRefs: [{group: tulle.dev, kind: ExternalService, name: files}]
  rules:
  - {name: read, from: [{serviceAccounts: [web]}], to: [{ports: ["80"], methods: [GET], paths: ["/f/{id}"]}]}
  - {name: safe, from: [{serviceAccounts: [web]}], to: [{ports: ["443"]}]}
`

const registryOnly = `---
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec:
  egress:
    mode: Registry
    rules:
    - {name: office, addresses: [203.0.113.0/24], ports: [443], action: Allow}
    - {name: night, addresses: [198.51.100.7], action: Deny}
`

// TestDecideEgress: what is outside of the mesh is decided by the caller's proxy, and that is what is told.
func TestDecideEgress(t *testing.T) {
	ask := func(from, to string, port uint16, change ...func(*compile.Question)) compile.Question {
		q := compile.Question{From: from, To: to, Port: port}
		for _, f := range change {
			f(&q)
		}
		return q
	}
	get := func(path string) func(*compile.Question) {
		return func(q *compile.Question) { q.Method, q.Path = "GET", path }
	}
	host := func(h string) func(*compile.Question) {
		return func(q *compile.Question) { q.Host, q.Method = h, "GET" }
	}
	sni := func(s string) func(*compile.Question) { return func(q *compile.Question) { q.ServerName = s } }
	const policy = "AuthorizationPolicy/default/files"
	decides(t, guarded(t, outside), []asked{
		{ask("web", "files", 80, get("/f/1")), "allowed | " + policy + " | read"},
		{ask("web", "external~files", 80, get("/f//%31")), "allowed | " + policy + " | read"},
		{ask("web", "external~files.default", 80, get("/f%2f1")), "denied | 400 | path: escaped slash"},
		{ask("web", "files.example.com", 80, get("/other")), "denied | 403"},
		{ask("web", "Files.Example.com.", 443), "allowed | " + policy + " | safe"},
		{ask("cart", "files.example.com", 443), "denied"},
		{ask("web", "files", 80, host("elsewhere.example")), "denied | 403 | ExternalService/default/files | elsewhere.example is none of its hosts"},
		{ask("web", "files", 443, sni("elsewhere.example")), "denied | ExternalService/default/files | elsewhere.example is none"},
		{ask("web", "files", 0), "ExternalService/default/files has the ports 80, 443: say which with --port"},
		{ask("web", "pattern", 443), "ExternalService/default/pattern has hosts by pattern"},
		{ask("web", "a.example.org", 443), "allowed"},
		{ask("web", "external~nothing", 443), "there is no ExternalService default/nothing"},
		{ask("web", "nothing", 443), "there is no Service nothing.default, nor an ExternalService"},
		{ask("", "files", 80), "--to files is outside of the mesh, where the proxy of the caller decides: say who calls, for example --from cart"},
		{ask("spiffe://other.example/ns/default/sa/web", "files", 80), "--from spiffe://other.example/ns/default/sa/web is of another mesh"},
		{ask("web", "www.example.net", 443), "allowed | egress mode Any"},
		{ask("web", "example.net.", 0), "--to example.net. is outside of the mesh, and rules may be about ports"},
		{ask("web", "203.0.113.9", 443, sni("files.example.com")), "allowed | " + policy + " | safe"},
		{ask("cart", "203.0.113.9", 443, sni("files.example.com")), "denied"},
		{ask("web", "reviews.default.svc.cluster.local", 80), "allowed"},
	})
	decides(t, guarded(t, outside+registryOnly), []asked{
		{ask("web", "files", 443), "allowed | " + policy + " | safe"},
		{ask("web", "a.example.org", 443), "allowed"},
		{ask("web", "www.example.net", 443), "denied | MeshConfig/mesh | egress mode Registry"},
		{ask("web", "theirs.example.com", 443), "denied | MeshConfig/mesh | egress mode Registry"},
		{ask("web", "shop/theirs", 443, get("/")), "denied | 403 | MeshConfig/mesh | egress mode Registry"},
		{ask("shop/web", "theirs", 443), "there is no Service theirs.default"},
		{ask("shop/web", "shop/theirs", 443), "allowed"},
		{ask("web", "203.0.113.9", 443), "allowed | MeshConfig/mesh office | an egress rule allows it"},
		{ask("web", "203.0.113.9", 80), "denied | MeshConfig/mesh | egress mode Registry"},
		{ask("web", "198.51.100.7", 443), "denied | MeshConfig/mesh night | an egress rule denies it"},
	})
	d, err := guarded(t, outside+registryOnly).Decide(&compile.Question{From: "web", To: "shop/theirs", Port: 443}, nil)
	if err != nil || len(d) != 1 || d[0].Egress != "Registry" || len(d[0].Notes) != 2 || !strings.Contains(d[0].Notes[0], "is not exported to namespace default") || !strings.Contains(d[0].Notes[1], "MeshConfig/mesh office, MeshConfig/mesh night") {
		t.Errorf("%v, %+v", err, d)
	}
}

// TestDecideCallers: policies that are about some of an account's workloads are told apart.
func TestDecideCallers(t *testing.T) {
	text := strings.Replace(outside, "  rules:", "  selector: {tier: front}\n  rules:", 1)
	web := model.ServiceName{Namespace: "default", Name: "shopfront"}
	front, back := []model.Label{{Name: "tier", Value: "front"}}, []model.Label{{Name: "tier", Value: "back"}}
	workloads := []compile.Workload{{Service: web, Account: "cart", Labels: front}, {Service: web, Account: "cart", Labels: back}, {Service: web, Account: "other", Labels: back}}
	d, err := guarded(t, text).Decide(&compile.Question{From: "cart", To: "files", Port: 443}, workloads)
	if err != nil || len(d) != 2 || d[0].Allowed || !d[1].Allowed || d[0].Labels[0].Value != "front" {
		t.Errorf("%v, %+v", err, d)
	}
}
