package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control"
)

const nowhereFile = `apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: misspelled}
spec:
  targetRefs:
  - {group: "", kind: Service, name: crat}
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: port}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  rules: [{to: [{notPorts: [admn]}]}]
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: asked}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  action: External
  external: {service: {name: authorizer, port: 9001}}
  rules: [{}]
---
apiVersion: tulle.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: strict}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  mtls: {ports: [{port: "123", mode: Strict}]}
---
apiVersion: tulle.dev/v1alpha1
kind: FaultInjection
metadata: {name: unused}
spec: {delay: {duration: 500ms}}
---
apiVersion: tulle.dev/v1alpha1
kind: FaultInjection
metadata: {name: stray}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: gone}]
  delay: {duration: 500ms}
`

// TestNowhere: policies that name what is not there are stored, and 'tulle apply' and 'tulle check' say it.
func TestNowhere(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	p, err := control.Start(t.Context(), control.Config{DataDir: dir, HTTPListen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0", Version: version(), Takes: takes})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	apply := func(name, text string, args ...string) string {
		var said bytes.Buffer
		root := newRootCommand()
		root.SetOut(t.Output())
		root.SetErr(&said)
		root.SetArgs(append([]string{"apply", "-f", write(t, files, name, text), "--data-dir", dir}, args...))
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		return said.String()
	}
	failed := func() string {
		var cmd cobra.Command
		cmd.SetContext(t.Context())
		list, err := checkObjects(&cmd, newClient(dir))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, c := range list {
			if !c.OK {
				b.WriteString(c.What + ": " + c.Message + "\n")
			}
		}
		return b.String()
	}
	if said := apply("cart.yaml", cartFile); said != "" || failed() != "" {
		t.Fatalf("nothing is wrong: %s%s", said, failed())
	}
	for _, args := range [][]string{{"--dry-run"}, nil} {
		said := apply("nowhere.yaml", nowhereFile, args...)
		for _, want := range []string{
			"nowhere.yaml:6: AuthorizationPolicy/misspelled: spec.targetRefs[0]: there is no Service crat.default: the policy does nothing there; ",
			`nowhere.yaml:13: AuthorizationPolicy/port: spec.rules[0].to[0].notPorts[0]: Service/default/cart has no port "admn": this would allow every port, so it allows nothing; `,
			"nowhere.yaml:21: AuthorizationPolicy/asked: spec.external.service: there is no authorizer.default:9001 to ask: what the policy is about is refused; ",
			`nowhere.yaml:29: AuthenticationPolicy/strict: spec.mtls.ports[0].port: Service/default/cart has no port "123": the mode is in force nowhere; `,
		} {
			if !strings.Contains(said, want) || !strings.HasPrefix(said, "warning: ") {
				t.Errorf("apply %v says\n%snot %s", args, said, want)
			}
		}
	}
	bad := failed()
	for _, want := range []string{
		"AuthorizationPolicy/default/misspelled: spec.targetRefs[0]: ", "(TargetNotFound)\n", "AuthorizationPolicy/default/port: ", "AuthenticationPolicy/default/strict: ", "(PortNotFound)\n",
		"AuthorizationPolicy/default/asked: ", "(BackendNotFound)\n", "FaultInjection/default/stray: ", "(NotAttached)\n",
	} {
		if !strings.Contains(bad, want) {
			t.Errorf("check says\n%snot %s", bad, want)
		}
	}
	if strings.Contains(bad, "unused") || strings.Count(bad, "\n") != 5 {
		t.Errorf("check says\n%s", bad)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // poll: the registry follows the store
		out, _ := tulle(t, "get", "authorizationpolicies", "--data-dir", dir)
		if strings.Contains(out, "False (PortNotFound)") && strings.Contains(out, "False (TargetNotFound)") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("get: %s", out)
		}
	}
}
