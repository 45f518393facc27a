//go:build e2e

package e2e

import (
	"strings"
	"testing"
)

// gatewayRoute is a route of any kind on a Service, in a namespace of its own.
func gatewayRoute(kind, namespace, name, parent, rest string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: " + namespace + "}\nspec:\n" +
		"  parentRefs: [{group: \"\", kind: Service, name: " + parent + ", namespace: default}]\n" + rest
}

// TestKinds: the kinds of routes and filters besides the plain HTTPRoute, seen by curl.
func TestKinds(t *testing.T) {
	m := newMesh(t)
	m.podinfo("is v1", "--service", "reviews", "--version", "v1")
	m.podinfo("is v2", "--service", "reviews", "--version", "v2")

	t.Run("a consumer's route is for its namespace alone", func(t *testing.T) {
		objects := strings.Join([]string{gatewayRoute("HTTPRoute", "default", "producer", "reviews", "  rules: [{backendRefs: [{name: reviews-v1, port: 8080}]}]\n"),
			gatewayRoute("HTTPRoute", "shop", "consumer", "reviews", "  rules: [{backendRefs: [{name: reviews-v2, namespace: default, port: 8080}]}]\n"),
			"apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: shop}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]\n  to: [{group: \"\", kind: Service}]\n"}, "---\n")
		m.apply(objects)
		if got := m.curl("http://reviews:8080/"); !strings.Contains(got, "is v1") {
			t.Errorf("from the service's own namespace: %s", got)
		}
		got := m.ok(m.finish(m.runCommand([]string{"--service", "shell", "--namespace", "shop"}, "curl", "-sS", "-m", "10", "http://reviews.default:8080/")))
		if !strings.Contains(got, "is v2") {
			t.Errorf("from namespace shop: %s", got)
		}
		if got := m.ok(m.cli("routes", "reviews")); !strings.Contains(got, "reviews.default:8080@shop") {
			t.Errorf("tulle routes: %s", got)
		}
		m.ok(m.cliInput(objects, "delete", "-f", "-"))
	})
	t.Run("filters", func(t *testing.T) {
		objects := "apiVersion: tulle.dev/v1alpha1\nkind: DirectResponse\nmetadata: {name: tea}\nspec: {status: 203, body: teapot}\n---\n" +
			gatewayRoute("HTTPRoute", "default", "filters", "reviews", `  rules:
  - matches: [{path: {value: /tea}}]
    filters: [{type: ExtensionRef, extensionRef: {group: tulle.dev, kind: DirectResponse, name: tea}}]
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]
  - matches: [{path: {value: /inside}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /}}}]
    backendRefs: [{name: reviews-v1, port: 8080}]
`)
		m.apply(objects)
		if got := m.curl("-w", " %{http_code}", "http://reviews:8080/tea"); got != "teapot 203" {
			t.Errorf("direct response: %s", got)
		}
		if got := m.curl("-w", "%{http_code} %{redirect_url}", "http://reviews:8080/old/x"); got != "302 http://reviews:8080/new/x" {
			t.Errorf("redirect: %s", got)
		}
		if got := m.curl("http://reviews:8080/inside/out"); !strings.Contains(got, "is v1") {
			t.Errorf("rewrite: %s", got)
		}
		m.ok(m.cliInput(objects, "delete", "-f", "-"))
	})
	t.Run("connections", func(t *testing.T) {
		m.apply(gatewayRoute("TCPRoute", "default", "tcp", "reviews", "  rules: [{backendRefs: [{name: reviews-v2, port: 8080}]}]\n"))
		for range 3 {
			if got := m.curl("http://reviews:8080/"); !strings.Contains(got, "is v2") {
				t.Errorf("a TCPRoute: %s", got)
			}
		}
		if got := m.ok(m.cli("get", "tcproutes")); !strings.Contains(got, "tcp") || !strings.Contains(got, "True") {
			t.Errorf("tulle get: %s", got)
		}
		if got := m.ok(m.cli("routes", "reviews")); !strings.Contains(got, "connections") {
			t.Errorf("tulle routes: %s", got)
		}
	})
}
