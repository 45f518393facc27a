//go:build e2e

package security

import (
	"fmt"
	"os/exec"
	"strings"
)

const denyAdmin = `apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: no-admin}
spec:
  targetRefs: [{kind: Service, name: target}]
  action: Deny
  rules:
  - to: [{paths: [/admin, /admin/*, "/caf%C3%A9"]}]
`

// paths is other spellings of what a policy denies. The program gets none of them.
func paths(m *mesh) (rows []row) {
	apply := exec.Command(m.tulle, "apply", "-f", "-", "--wait", "10s", "--data-dir", m.data)
	apply.Stdin = strings.NewReader(denyAdmin)
	if out, err := apply.CombinedOutput(); err != nil {
		m.t.Fatalf("%v: %s", err, out)
	}
	for target, want := range map[string]string{
		"/admin": "403", "/admin/x": "403", "/admin?x": "403", "/admin/": "403", "//admin": "403", "///admin//x": "403", "/%61dmin": "403", "/%61%64%6D%69%6e": "403", "/x/../admin": "403", "/./admin": "403", "/%2e/admin": "403",
		"/x/%2E%2e/admin": "403", "/x/.%2e/admin": "403", "/../admin": "403", "/x//../admin": "403", "/caf%c3%a9": "403", "/caf\xc3\xa9": "403", "http://target/%61dmin": "403", "HTTP://target//admin": "403",
		"/%2fadmin": "400", "/%2Fadmin": "400", "/x/..%2fadmin": "400", "/admin%2f": "400", "/x/..;/admin": "400", "/admin;x": "400", "/admin%3bx": "400", "/x\\..\\admin": "400", "\\admin": "400", "/%5cadmin": "400", "/%00/admin": "400",
		"/admin%00": "400", "/admin%0a": "400", "/%c0%afadmin": "400", "/%c0%ae%c0%ae/admin": "400", "/%e0%80%afadmin": "400", "/%2561dmin": "400", "/%252e%252e/admin": "400", "/%25252fadmin": "400", "/%u0061dmin": "400", "/\xffadmin": "400",
	} {
		rows = append(rows, row{name: fmt.Sprintf("path %q", target), want: []string{want}, hidden: true, try: func(m *mesh) string { return raw(m, "GET "+target+" HTTP/1.1\r\nHost: target\r\n\r\n") }})
		if target[0] == '/' {
			rows = append(rows, row{name: fmt.Sprintf("path over HTTP/2 %q", target), want: []string{want}, hidden: true, try: func(m *mesh) string {
				return talk2(m, func(p *peer2) { p.path(target) })
			}})
		}
	}
	for fields, want := range map[string]string{
		"X-HTTP-Method-Override: GET\r\n": "403", "X-Original-URL: /x\r\n": "403", "X-Rewrite-URL: /x\r\n": "403", "x-envoy-original-path: /x\r\n": "403", "X-Forwarded-Prefix: /x\r\n": "403", "Connection: host\r\n": "403",
	} {
		rows = append(rows, row{name: fmt.Sprintf("denied path with %q", fields), want: []string{want}, hidden: true, try: func(m *mesh) string { return raw(m, "GET /admin HTTP/1.1\r\nHost: target\r\n"+fields+"\r\n") }})
	}
	return rows
}
