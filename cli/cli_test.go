package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/control"
	"github.com/tulle-mesh/tulle/control/httpapi"
)

// tulle runs one command in this process and answers what a user sees.
func tulle(t *testing.T, args ...string) (out, errText string) {
	t.Helper()
	root := newRootCommand()
	var b bytes.Buffer
	root.SetOut(&b)
	root.SetErr(t.Output())
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(t.Context())
	if err != nil {
		errText = errorText(cmd.CommandPath(), err)
	}
	return b.String(), errText
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const cartFile = `apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules:
  - matches: [{path: {value: /a}, method: GET, headers: [{name: x, value: "1"}]}]
    backendRefs: [{name: cart, port: 80}]
`

const policyFile = `apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: slow}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  timeouts: {request: 3s}
`

const rivalFile = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: rival}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules:
  - matches: [{path: {value: /a}, method: GET, headers: [{name: x, value: "1"}]}]
    backendRefs: [{name: cart, port: 80, weight: 2}]
`

const strayFile = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: stray}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules:
  - matches: [{path: {value: /stray}}]
    filters: [{type: ExtensionRef, extensionRef: {group: tulle.dev, kind: FaultInjection, name: slow}}]
    backendRefs: [{name: pay, namespace: bank, port: 80}]
---
apiVersion: tulle.dev/v1alpha1
kind: FaultInjection
metadata: {name: slow}
spec: {delay: {duration: 500ms, percent: 10}, abort: {httpStatus: 503, percent: 5}}
`

// TestCommands walks through what a user does with resources, against a control plane.
func TestCommands(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	p, err := control.Start(t.Context(), control.Config{DataDir: dir, HTTPListen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0", Version: version()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	good := write(t, files, "cart.yaml", cartFile)
	policy := write(t, files, "policy.yaml", policyFile)
	faster := write(t, files, "faster.yaml", strings.Replace(policyFile, "3s", "2s", 1))
	rival := write(t, files, "rival.yaml", rivalFile)
	stray := write(t, files, "stray.yaml", strayFile)
	moved := write(t, files, "moved.yaml", strings.Replace(strings.Split(cartFile, "---")[0], "port: 80", "port: 81", 1))
	bad := write(t, files, "bad.yaml", strings.Replace(cartFile, "backendRefs", "backendRef", 1))
	for _, c := range []struct {
		args []string
		want string // in what is printed
		err  string // in what is said on failure
	}{
		{[]string{"apply", "-f", good, "--dry-run"}, "service/cart created (dry run, nothing was stored)\n", ""},
		{[]string{"apply", "-f", bad}, "", bad + ":13: HTTPRoute/cart: spec.rules[0].backendRef: is not a field: did you mean backendRefs?\ntulle apply: nothing was stored\n"},
		{[]string{"get", "services"}, "NAME   SELECTOR   PORTS   AGE\n", ""},
		{[]string{"apply", "-f", good}, "service/cart created\nhttproute/cart created\n", ""},
		{[]string{"apply", "-f", good}, "unchanged", ""},
		{[]string{"get", "service", "cart"}, "80→80", ""},
		{[]string{"get", "httproute", "cart", "-o", "yaml"}, "kind: HTTPRoute\n", ""},
		{[]string{"get", "httproutes", "-A"}, "NAMESPACE", ""},
		{[]string{"get", "httproute", "nope"}, "", "tulle get: HTTPRoute/default/nope: not found\n"},
		{[]string{"get", "pods"}, "", "write one of services, httproutes, grpcroutes"},
		{[]string{"get", "services", "-o", "xml"}, "", "write json or yaml"},
		{[]string{"routes", "cart"}, "GET /a/* x=1", ""},
		{[]string{"diff", "-f", good}, "", ""},
		{[]string{"diff", "-f", bad}, "", "exit code 2"},
		{[]string{"diff", "-f", policy}, "--- stored/default/trafficpolicy/slow\n+++ file/default/trafficpolicy/slow\n@@ -0,0 +1,", "exit code 1"},
		{[]string{"apply", "-f", policy, "--dry-run"}, "routes cart.default:80 changed\n  callers: none has it now\n  HTTPRoute/default/cart[0].Timeouts.Request: (none) → 3s\n", ""},
		{[]string{"get", "trafficpolicies"}, "NAME   ON", ""},
		{[]string{"apply", "-f", policy}, "trafficpolicy/slow created\n", ""},
		{[]string{"diff", "-f", policy}, "", ""},
		{[]string{"diff", "-f", faster}, "@@ -9,4 +9,4 @@\n       kind: Service\n       name: cart\n   timeouts:\n-    request: 3s\n+    request: 2s\n", "exit code 1"},
		{[]string{"diff", "-f", faster}, "# routes cart.default:80 changed; callers: none has it now\n", "exit code 1"},
		{[]string{"apply", "-f", faster, "--dry-run"}, "trafficpolicy/slow would change\n  spec.timeouts.request: 3s → 2s\n", ""},
		{[]string{"get", "trafficpolicies"}, "slow   Service/cart   timeouts   True       False        True", ""},
		{[]string{"get", "trafficpolicy", "slow", "-o", "yaml"}, "reason: NoConflict\n", ""},
		{[]string{"routes", "cart"}, "  by TrafficPolicy/default/slow (on Service/cart):\n    timeouts.request: 3s\n", ""},
		{[]string{"apply", "-f", rival, "--strict"}, "", rival + ":7: HTTPRoute/rival: Service/default/cart:80: HTTPRoute/default/cart, rule 0 and HTTPRoute/default/rival, rule 0 both match `GET http://cart.default:80/a x: 1`; HTTPRoute/default/cart, rule 0 wins: they are equally specific, and it is older."},
		{[]string{"apply", "-f", rival, "-o", "json"}, `"tie": true`, ""},
		{[]string{"apply", "-f", policy, "-f", rival}, "unchanged", ""},
		{[]string{"apply", "-f", stray}, "", stray + ":9: HTTPRoute/stray: spec.rules[0].backendRefs[0].name: there is no Service pay in namespace bank"},
		{[]string{"apply", "-f", stray, "--allow-unresolved", "-o", "json"}, "no ReferenceGrant in bank lets", ""},
		{[]string{"routes", "cart"}, "FAULT: 10% wait 500ms, 5% are answered 503\n", ""},
		{[]string{"get", "faultinjection", "slow"}, "HTTPRoute/stray, rule 0   True", ""},
		{[]string{"apply", "-f", moved, "--dry-run", "-o", "json"}, "\"object\": \"HTTPRoute/default/cart\",\n      \"path\": \"spec.rules[0].backendRefs[0]\",\n      \"message\": \"Service cart.default has no port 80", ""},
		{[]string{"delete", "httproute", "stray"}, "deleted", ""},
		{[]string{"get", "faultinjection", "slow"}, "False (NotAttached)", ""},
		{[]string{"delete", "faultinjection", "slow"}, "deleted", ""},
		{[]string{"delete", "-f", rival, "--dry-run"}, "deleted", ""},
		{[]string{"delete", "-f", rival}, "deleted", ""},
		{[]string{"delete", "-f", policy}, "deleted", ""},
		{[]string{"endpoints"}, "cart.default:80   (none)", ""},
		{[]string{"status"}, "trust domain tulle.local", ""},
		{[]string{"stat"}, "nothing flowed", ""},
		{[]string{"wait", "--timeout", "5s"}, "is enforced by every proxy", ""},
		{[]string{"token", "--uses", "3", "--any"}, "tulle-join.", ""},
		{[]string{"token", "list"}, "3", ""},
		{[]string{"token", "revoke", "0000000000000000"}, "", "not found"},
		{[]string{"delete", "-f", good}, "httproute/cart deleted\n", ""},
		{[]string{"delete", "service", "cart"}, "", "not found"},
		{[]string{"delete"}, "", "nothing to delete"},
		{[]string{"apply"}, "", "no file given"},
		{[]string{"apply", "-f", filepath.Join(files, "none.yaml")}, "", "no such file"},
		{[]string{"up", "--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"}, "", "already uses"},
		{[]string{"satus"}, "", `there is no command "satus": did you mean 'status'?`},
		{[]string{"get", "--nope"}, "", "see 'tulle get --help'"},
	} {
		args := append(c.args, "--data-dir", dir)
		out, errText := tulle(t, args...)
		if !strings.Contains(out, c.want) || !strings.Contains(errText, c.err) || (c.err == "") != (errText == "") {
			t.Errorf("tulle %s\nprinted %swant    %s\nsaid    %swant    %s", strings.Join(c.args, " "), out, c.want, errText, c.err)
		}
	}
}

// TestConflicts: what the stored resources want of the same requests is listed, tried on the router; policies that are not in
// force are named.
func TestConflicts(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	p, err := control.Start(t.Context(), control.Config{DataDir: dir, HTTPListen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0", Version: version(), Takes: takes})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	lost := strings.Replace(policyFile, "targetRefs: [", "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: lost}, ", 1)
	for _, text := range []string{cartFile, rivalFile, lost} {
		if out, errText := tulle(t, "apply", "-f", write(t, files, "f.yaml", text), "--data-dir", dir); strings.Contains(errText, "error") {
			t.Fatal(out, errText)
		}
	}
	var got httpapi.Conflicts
	if err := newClient(dir).call(t.Context(), http.MethodGet, "/v1/conflicts", nil, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Conflicts) != 1 || got.Conflicts[0].Request == nil || got.Conflicts[0].Request.String() != "GET http://cart.default:80/a x: 1" || !got.Conflicts[0].Tie {
		t.Errorf("conflicts: %+v", got.Conflicts)
	}
	if len(got.Policies) != 1 || got.Policies[0].Target != "HTTPRoute/lost" || got.Policies[0].Reason != "TargetNotFound" {
		t.Errorf("policies: %+v", got.Policies)
	}
}

// TestJSON: every listing is one JSON document with -o json.
func TestJSON(t *testing.T) {
	dir := t.TempDir()
	p, err := control.Start(t.Context(), control.Config{DataDir: dir, HTTPListen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0", Version: version()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, args := range [][]string{{"status"}, {"endpoints"}, {"routes"}, {"stat"}, {"get", "services"}, {"token", "--any"}, {"token", "list"}} {
		out, errText := tulle(t, append(args, "-o", "json", "--data-dir", dir)...)
		if errText != "" || !json.Valid([]byte(out)) {
			t.Errorf("%v: %s%s", args, out, errText)
		}
	}
}

// TestNoControlPlane: every command that needs one says so in one line, with the next step.
func TestNoControlPlane(t *testing.T) {
	dir := t.TempDir()
	stale := t.TempDir() // a killed control plane leaves its socket
	write(t, stale, "api.sock", "")
	for _, d := range []string{dir, stale} {
		for _, args := range [][]string{{"status"}, {"endpoints"}, {"routes"}, {"stat"}, {"get", "services"}, {"token", "--any"}, {"wait"}, {"delete", "service", "a"}} {
			_, errText := tulle(t, append(args, "--data-dir", d)...)
			if !strings.Contains(errText, "start one with 'tulle up'") || strings.Count(errText, "\n") != 1 {
				t.Errorf("%v: %q", args, errText)
			}
		}
	}
}

func TestErrorText(t *testing.T) {
	if got := errorText("tulle up", errors.New("a\nb\n")); got != "tulle up: a; b\n" {
		t.Errorf("%q", got)
	}
}
