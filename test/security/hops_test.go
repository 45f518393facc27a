//go:build e2e

package security

import (
	"fmt"
	"os/exec"
	"strings"
)

const oneHop = `apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {trustedHops: 1}
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: far}
spec:
  targetRefs: [{kind: Service, name: target}]
  action: Deny
  rules: [{from: [{notRemoteIPBlocks: [192.0.2.0/24]}], to: [{paths: [/near]}]}]
`

// hops is lists of addresses, where one proxy in front is believed: only who it says has come is near.
func hops(m *mesh) (rows []row) {
	apply := exec.Command(m.tulle, "apply", "-f", "-", "--wait", "10s", "--data-dir", m.data)
	apply.Stdin = strings.NewReader(oneHop)
	if out, err := apply.CombinedOutput(); err != nil {
		m.t.Fatalf("%v: %s", err, out)
	}
	for fields, want := range map[string]string{
		"": "403", "X-Forwarded-For: 192.0.2.1\r\n": "200", "X-Forwarded-For: 10.9.9.9, 192.0.2.1\r\n": "200", "X-Forwarded-For: 192.0.2.1, 10.9.9.9\r\n": "403", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.9.9.9\r\n": "403",
		"X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-For: 192.0.2.1\r\n": "200", "X-Forwarded-For: 192.0.2.1,\r\n": "403", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For:\r\n": "403", "X-Forwarded-For: 192.0.2.1:80\r\n": "403", "X-Forwarded-For: 192.0.2.1 10.9.9.9\r\n": "403",
		"X-Forwarded-For: 192.0.2.1;10.9.9.9\r\n": "403", "X-Forwarded-For: \"192.0.2.1\"\r\n": "403", "X-Forwarded-For: 192.0.2.01\r\n": "403", "X-Forwarded-For: 3221225985\r\n": "403", "X-Forwarded-For: 0xc0.0.2.1\r\n": "403", "X-Forwarded-For: ::ffff:192.0.2.1\r\n": "200",
		"X-Forwarded-For: [::ffff:192.0.2.1]\r\n": "403", "X-Real-IP: 192.0.2.1\r\n": "403", "Forwarded: for=192.0.2.1\r\n": "403", "X_Forwarded_For: 192.0.2.1\r\n": "403", "X-Envoy-External-Address: 192.0.2.1\r\n": "403", "True-Client-IP: 192.0.2.1\r\n": "403",
		"Connection: x-forwarded-for\r\nX-Forwarded-For: 192.0.2.1\r\n": "403",
	} {
		rows = append(rows, row{name: fmt.Sprintf("hops %q", fields), want: []string{want}, hidden: want == "403", try: func(m *mesh) string {
			return raw(m, "GET /near HTTP/1.1\r\nHost: target\r\n"+fields+"\r\n")
		}})
	}
	return rows
}
