//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/tulle-mesh/tulle/control/trust"
)

// TestTrustDomainChanges: a mesh gets another trust domain under load, with a connection and a handshake for every request of one of the
// callers, a policy that names callers by the old one, and a restart of the control plane. No request fails, and everybody has an
// identity of the new one in the end.
func TestTrustDomainChanges(t *testing.T) {
	m := newMesh(t, "--identity-lifetime", "1m", "--intermediate-lifetime", "10m", "--root-lifetime", "1h")
	p := m.run([]string{"--service", "httpbin", "--port", "8080", "--port", "raw=8081:8080/tcp"}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF")
	m.announced(p)
	m.apply(authorize("load", "httpbin", "  rules: [{from: [{principals: [\"spiffe://tulle.local/ns/default/sa/load\"]}]}]\n"))
	kept := m.load(nil, "http://httpbin:8080/get")
	fresh := m.load([]string{"-close"}, "http://httpbin:8081/get")
	const mesh = "apiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {trustDomain: new.example%s}\n"
	if r := m.cliInput(fmt.Sprintf(mesh, ""), "apply", "-f", "-"); r.code == 0 || !strings.Contains(r.stderr, "trustDomainAliases") {
		t.Errorf("without an alias: %s", r)
	}
	m.apply(fmt.Sprintf(mesh, ", trustDomainAliases: [tulle.local]"))
	if r := m.certs(); r.TrustDomain != "tulle.local" || fmt.Sprint(r.Aliases) != "[new.example]" {
		t.Errorf("before the restart: %s, aliases %v", r.TrustDomain, r.Aliases)
	}
	m.control.killAll()
	m.up()
	if !strings.Contains(m.control.stdout(), "control plane of new.example") {
		t.Errorf("after the restart: %s", m.control.stdout())
	}
	eventually(t, 2*patience, "everybody has an identity of the new trust domain", func() error {
		r := m.certs()
		for _, w := range r.Workloads {
			if !strings.HasPrefix(w.Identity, "spiffe://new.example/") || !w.Connected {
				return fmt.Errorf("%s is %s, connected %v", w.Workload, w.Identity, w.Connected)
			}
		}
		if len(r.Workloads) != 3 || fmt.Sprint(r.Aliases) != "[tulle.local]" {
			return fmt.Errorf("%d workloads, aliases %v", len(r.Workloads), r.Aliases)
		}
		return nil
	})
	kept.more(100)
	fresh.more(100)
	if c := fresh.finish(); c.Failed > 0 || c.Opened != c.OK {
		t.Errorf("%d of %d failed: %v", c.Failed, c.OK, c.Errors)
	}
	kept.flawless()
	if r := m.call("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", "http://httpbin:8080/get"); r.stdout == "200" {
		t.Errorf("who no policy names: %s", r)
	}
}

// svidGetMain asks for a page over mutual TLS with what go-spiffe finds, and prints the status or why not. args: address, whom to expect.
func svidGetMain(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	expect, err := spiffeid.FromString(args[1])
	if err != nil {
		return err
	}
	c := http.Client{Transport: &http.Transport{TLSClientConfig: tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(expect))}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		fmt.Println("failed:", err)
		return nil
	}
	res.Body.Close()
	fmt.Println(res.StatusCode)
	return nil
}

// TestFederation: two meshes believe each other's bundles, one of them by fetching it. A program of one calls a published port of the
// other with its own identity: it gets in only while a policy there names its trust domain, whatever else is allowed.
func TestFederation(t *testing.T) {
	lives := []string{"--identity-lifetime", "20s", "--intermediate-lifetime", "10m", "--root-lifetime", "1h"}
	bundleOf := freeAddress(t)
	a := newMesh(t, append(lives, "--trust-domain", "a.example")...)
	b := newMesh(t, append(lives, "--trust-domain", "b.example", "--bundle-listen", bundleOf)...)
	door := freePort(t)
	a.announced(a.run([]string{"--service", "httpbin", "--port", "8080/http", "--publish", door}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF"))
	b.apply("apiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec:\n  trustDomain: b.example\n  federation:\n  - trustDomain: a.example\n    bundle: |\n" + indent(a.ok(a.cli("cert", "bundle", "--pem"))))
	get := func() string {
		return strings.TrimSpace(b.ok(b.finish(b.runCommand([]string{"--service", "guest", "--workload-api", "--forward", door}, self(t), "svid-get", "https://127.0.0.1:"+door+"/get", "spiffe://a.example/ns/default/sa/httpbin"))))
	}
	answers := func(what, want string) {
		t.Helper()
		eventually(t, patience, what, func() error {
			if got := get(); !strings.HasPrefix(got, want) {
				return errors.New(got)
			}
			return nil
		})
	}
	const strict = "apiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec:\n  trustDomain: a.example\n  mtls: {mode: Strict}\n"
	a.apply(strict)
	answers("a mesh that is not known is refused", "failed:")
	a.apply(strict + "  federation:\n  - trustDomain: b.example\n    bundle: |\n" + indent(b.ok(b.cli("cert", "bundle"))) +
		"    endpoint: {url: \"https://" + bundleOf + "/\", profile: https_spiffe, spiffeID: spiffe://b.example/ns/tulle-system/sa/control}\n")
	fetched := func(ok func(trust.Federated) bool) func() error {
		return func() error {
			list := a.certs().Federated
			if len(list) != 1 || !ok(list[0]) {
				return fmt.Errorf("%+v", list)
			}
			return nil
		}
	}
	eventually(t, patience, "the bundle is fetched", fetched(func(f trust.Federated) bool {
		return strings.Contains(f.From, bundleOf) && len(f.Bundle) == 1 && f.Failing == ""
	}))
	if got := get(); !strings.HasPrefix(got, "failed:") {
		t.Errorf("nothing allows it, and it gets in: %s", got)
	}
	a.apply(authorize("guests", "httpbin", "  rules: [{from: [{trustDomains: [b.example]}]}]\n"))
	answers("a policy names the trust domain", "200")
	b.ok(b.cli("cert", "rotate", "--root"))
	eventually(t, patience, "the next root of the other mesh is known", fetched(func(f trust.Federated) bool { return len(f.Bundle) == 2 }))
	answers("below the next root", "200")
	a.apply(authorize("guests", "httpbin", "  rules: [{from: [{namespaces: [default]}]}]\n"))
	answers("a policy means namespaces of its own mesh", "failed:")
	if r := a.cli("cert"); r.code != 0 || !strings.Contains(r.stdout, "federated b.example") {
		t.Errorf("tulle cert: %s", r)
	}
}

// indent makes a text a block of YAML in a bundle.
func indent(text string) string {
	return "      " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n      ") + "\n"
}
