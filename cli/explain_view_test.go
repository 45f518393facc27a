package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model/flight"
)

// TestExplainView: what refused a request, or had the last word about it, is named.
func TestExplainView(t *testing.T) {
	in := flight.Explained{Direction: "inbound", Destination: "web.default", Port: 80, Method: "GET", Path: "/", Request: "id"}
	out := flight.Explained{Direction: "outbound", Wanted: "203.0.113.5:443", Host: "x.example", Method: "GET", Path: "/", Reason: "egress_denied", Status: 403}
	with := func(e flight.Explained, d *flight.Decided, r *flight.Refused) flight.Explained {
		e.Decision, e.Refused = d, r
		return e
	}
	const ext, auth = "AuthorizationPolicy/default/ext asked", "auth.default:9000"
	for name, c := range map[string]struct {
		e          flight.Explained
		want, deny []string
	}{
		"token": {with(in, nil, &flight.Refused{By: "AuthenticationPolicy/default/cart jwt[0]", Issuer: "https://idp\x1b", Cause: "the token has expired"}),
			[]string{"refused   by AuthenticationPolicy/default/cart jwt[0]: the token has expired", "token     names "}, []string{"\x1b"}},
		"mode": {with(out, nil, &flight.Refused{By: "MeshConfig/mesh mode Registry", Cause: "no rule"}),
			[]string{"GET / of 203.0.113.5:443 outside of the mesh", "→ 203.0.113.5:443 outside of the mesh", "by MeshConfig/mesh mode Registry: no rule", "host      x.example"}, []string{"mesh:0"}},
		"external service": {with(out, &flight.Decided{Verdict: "denied", Absent: true}, nil),
			[]string{"denied because nothing allows it", "nearest   not looked for, there were others like it in the same second: ask 'tulle authz check'"}, nil},
		"agreed": {with(in, &flight.Decided{Verdict: "allowed", Policy: "AuthorizationPolicy/default/ext", Rule: "asked", External: ext, Authorizer: auth, Word: "agreed"}, nil),
			[]string{"allowed by AuthorizationPolicy/default/ext, asked, agreed by " + auth + "\n"}, []string{"no policy"}},
		"agreed beside": {with(in, &flight.Decided{Verdict: "allowed", Policy: "AuthorizationPolicy/default/readers", Rule: "r", External: ext, Authorizer: auth, Word: "agreed"}, nil),
			[]string{"allowed by AuthorizationPolicy/default/readers, r, agreed by " + auth + " for " + ext}, nil},
		"open": {with(in, &flight.Decided{Verdict: "allowed", Policy: "AuthorizationPolicy/default/ext", Rule: "asked", External: ext, Authorizer: auth, Word: "no answer"}, nil),
			[]string{"let through without an answer of " + auth + " (failOpen)"}, []string{"no policy"}},
		"refused": {with(in, &flight.Decided{Verdict: "denied", Policy: "AuthorizationPolicy/default/ext", Rule: "asked", External: ext, Authorizer: auth, Word: "refused"}, nil),
			[]string{"denied by AuthorizationPolicy/default/ext, asked, refused by " + auth}, nil},
		"unanswered": {with(in, &flight.Decided{Verdict: "denied", Policy: "AuthorizationPolicy/default/ext", Rule: "asked", External: ext, Authorizer: auth, Word: "no answer"}, nil),
			[]string{"asked, without an answer of " + auth}, nil},
	} {
		var b bytes.Buffer
		printExplained(&b, []flight.Explained{c.e})
		for _, part := range c.want {
			if !strings.Contains(b.String(), part) {
				t.Errorf("%s: without %q:\n%s", name, part, b.String())
			}
		}
		for _, part := range c.deny {
			if strings.Contains(b.String(), part) {
				t.Errorf("%s: with %q:\n%s", name, part, b.String())
			}
		}
	}
}
