package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/control"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/httpapi"
)

const guardFile = `apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: cart}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  rules:
  - name: readers
    from: [{serviceAccounts: [web]}]
    to: [{methods: [GET], paths: ["/items/{id}"]}]
  - name: staff
    expression: '"staff" in token.claims.values("groups") && request.headers["x-user"] == "alice"'
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: stricter}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  action: Deny
  dryRun: true
  rules:
  - name: old
    to: [{paths: ["/items/1"]}]
`

const proofFile = `apiVersion: tulle.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: proof}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  jwt: [{issuer: "https://issuer.example", jwksURL: "https://issuer.example/keys", requiredPaths: [/mine]}]
`

const filesFile = `apiVersion: tulle.dev/v1alpha1
kind: ExternalService
metadata: {name: files}
spec: {hosts: [files.example.com], ports: [{port: 80, protocol: http}]}
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: files}
spec:
  targetRefs: [{group: tulle.dev, kind: ExternalService, name: files}]
  rules: [{name: read, from: [{serviceAccounts: [web]}], to: [{methods: [GET], paths: ["/f/{id}"]}]}]
---
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {egress: {mode: Registry}}
`

// TestAuthzCheck: what would be decided is told before the fact, with the policy, the rule, and what is missing.
func TestAuthzCheck(t *testing.T) {
	file, proof := write(t, t.TempDir(), "guard.yaml", guardFile), write(t, t.TempDir(), "proof.yaml", proofFile)
	check := func(args ...string) (out, errText string) {
		return tulle(t, append([]string{"authz", "check", "--offline", "-f", file, "-f", proof, "--to", "cart"}, args...)...)
	}
	for _, one := range []struct{ args, want, code string }{
		{"--from web --method GET --path /items/7", "allowed: cart.default:80\n  by AuthorizationPolicy/default/cart, readers\n", ""},
		{"--from web --path /items/7", "allowed: ", ""},
		{"--from web --method POST --path /items/7", "denied: cart.default:80\n  because nothing allows it\n  nearest: AuthorizationPolicy/default/cart, readers: method POST instead of GET\n", "exit code 1"},
		{"--from shop/web --method GET --path /items/7", "nearest: AuthorizationPolicy/default/cart, readers: service account shop/web instead of default/web", "exit code 1"},
		{"--from web --method GET --path /items/1", "allowed: cart.default:80\n  by AuthorizationPolicy/default/cart, readers\n  in dry run: denied, by AuthorizationPolicy/default/stricter, old\n", ""},
		{"--method DELETE --path /x --header X-User=alice --token-claim groups=dev --token-claim groups=staff", "allowed: cart.default:80\n  by AuthorizationPolicy/default/cart, staff\n", ""},
		{"--from web", "because nothing allows it\n  nearest: ", "exit code 1"},
		{"--from spiffe://tulle.local/ns/default/sa/web --method GET --path /items/7?a=b --port 80", "allowed: ", ""},
		{"--from web --path /items//%37", "allowed: cart.default:80\n  by AuthorizationPolicy/default/cart, readers\n", ""},
		{"--from web --path /items%2f7", "denied: cart.default:80\n  400, path: escaped slash or backslash\n", "exit code 1"},
		{"--path /mine", "denied: cart.default:80\n  401, AuthenticationPolicy/default/proof jwt[0]: a token is required, and the request has none: name it with --token\n", "exit code 1"},
		{"--from web --path nope", "", "exit code 2"},
		{"--from web/ --path /", "", "exit code 2"},
		{"--from web --method G=T", "", "exit code 2"},
		{"--token foo --path /", "", "exit code 2"},
		{"--from web --ip nowhere", "", "exit code 2"},
		{"--from spiffe://x", "", "exit code 2"},
		{"--header x", "", "exit code 2"},
	} {
		out, errText := check(strings.Fields(one.args)...)
		if !strings.Contains(out, one.want) || !strings.Contains(errText, one.code) || one.code == "" && errText != "" {
			t.Errorf("%s: %s%s", one.args, out, errText)
		}
	}
	// What is outside of the mesh.
	files := write(t, t.TempDir(), "files.yaml", filesFile)
	for _, one := range []struct{ args, want, code string }{
		{"--from web --to files --path /f/1", "allowed: external~files.default:80\n  by AuthorizationPolicy/default/files, read\n  note: ExternalService/default/files is outside of the mesh: the proxy of the caller decides (egress mode Registry)\n", ""},
		{"--from web --to files.example.com --path /x", "denied: external~files.default:80\n  because nothing allows it\n  nearest: AuthorizationPolicy/default/files, read: path /x instead of /f/{id}\n", "exit code 1"},
		{"--from web --to www.example.net --port 443", "denied: www.example.net:443\n  MeshConfig/mesh: egress mode Registry, ", "exit code 1"},
		{"--to files", "", "exit code 2"},
	} {
		out, errText := tulle(t, append([]string{"authz", "check", "--offline", "-f", files}, strings.Fields(one.args)...)...)
		if !strings.HasPrefix(out, one.want) || !strings.Contains(errText, one.code) || one.code == "" && errText != "" {
			t.Errorf("%s: %s%s", one.args, out, errText)
		}
	}
	out, _ := check("--from", "web", "--method", "POST", "--path", "/items/7", "-o", "json")
	var a httpapi.AuthzAnswer
	if err := json.Unmarshal([]byte(out), &a); err != nil || a.Allowed || len(a.Decisions) != 1 || a.Decisions[0].Near != "readers" || !a.Decisions[0].Absent {
		t.Errorf("%v: %s", err, out)
	}
}

// TestAuthzCheckStored: files are held to be applied, beside what is stored, and change nothing.
func TestAuthzCheckStored(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	p, err := control.Start(t.Context(), control.Config{DataDir: dir, HTTPListen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0", Version: version()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	guard := write(t, files, "guard.yaml", guardFile)
	if out, errText := tulle(t, "apply", "-f", write(t, files, "cart.yaml", cartFile), "--data-dir", dir); errText != "" {
		t.Fatal(out, errText)
	}
	asked := []string{"authz", "check", "--data-dir", dir, "--from", "web", "--to", "cart", "--method", "POST"}
	web := httpapi.RevocationRequest{What: "spiffe://tulle.local/ns/default/sa/web", Reason: "stolen"}
	for _, one := range []struct{ path, want string }{
		{"/v1/revocations", "denied: cart.default:80\n  revocation of spiffe://tulle.local/ns/default/sa/web: revoked at "}, {"/v1/revocations/restore", "allowed: "},
	} {
		if err := newClient(dir).call(t.Context(), http.MethodPost, one.path, web, &struct{}{}); err != nil {
			t.Fatal(err)
		}
		if out, errText := tulle(t, asked...); !strings.HasPrefix(out, one.want) || strings.HasPrefix(out, "denied") && !strings.Contains(out, " (stolen), so its handshakes fail: 'tulle cert restore spiffe://") {
			t.Errorf("%s: %s%s", one.path, out, errText)
		}
	}
	for _, one := range []struct {
		more string
		want string
	}{{"", "allowed: cart.default:80\n  because no policy is about it\n"}, {guard, "denied: cart.default:80\n  because nothing allows it\n"}, {"", "allowed: "}} {
		args := asked
		if one.more != "" {
			args = append(append([]string{}, asked...), "-f", one.more)
		}
		if out, errText := tulle(t, args...); !strings.HasPrefix(out, one.want) {
			t.Errorf("%v: %s%s", args, out, errText)
		}
	}
	// What is not there is said not to be there: it has been an EOF.
	err = newClient(dir).call(t.Context(), http.MethodPost, "/v1/authz/check", httpapi.AuthzCheck{Question: compile.Question{To: "nobody"}}, nil)
	if err == nil || !strings.Contains(err.Error(), "there is no Service nobody.default, nor an ExternalService with that name or host: correct --to") {
		t.Error(err)
	}
	bad := write(t, files, "bad.yaml", strings.Replace(guardFile, "token.claims", "token.claim", 1))
	if out, errText := tulle(t, "apply", "-f", bad, "--data-dir", dir); !strings.Contains(errText, "bad.yaml:11: AuthorizationPolicy/cart: spec.rules[1].expression: line 1, column 30: ") {
		t.Errorf("%s%s", out, errText)
	}
	if _, errText := tulle(t, "apply", "-f", guard, "--data-dir", dir); errText != "" {
		t.Fatal(errText)
	}
	if out, errText := tulle(t, asked...); !strings.HasPrefix(out, "denied: ") || !strings.Contains(errText, "exit code 1") {
		t.Errorf("%s%s", out, errText)
	}
}
