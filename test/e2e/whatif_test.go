//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/control/advise"
	"github.com/tulle-mesh/tulle/model/decision"
)

// asked is one kind of request.
type asked struct{ caller, method, path string }

// randomPolicy answers the spec of an AuthorizationPolicy about what TestWhatIfHappens asks for.
func randomPolicy(r *rand.Rand) string {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	out := "  action: " + pick("Allow", "Deny") + "\n  rules:\n"
	for range 1 + r.IntN(2) {
		var parts []string
		for _, part := range []string{
			"from: [" + pick("{serviceAccounts: [a]}", "{principals: [\"*/sa/b\"]}", "{notServiceAccounts: [a]}", "{namespaces: [default]}", "{ipBlocks: [203.0.113.0/24]}", "{trustDomains: [tulle.local], serviceAccounts: [\"b*\"]}") + "]",
			"to: [" + pick("{methods: [GET]}", "{methods: [POST], paths: [\"/anything/a\"]}", "{paths: [\"/anything/{id}\"]}", "{paths: [\"/anything/*\"]}", "{paths: [\"*/b\"]}", "{notPaths: [/anything]}", "{hosts: [httpbin], ports: [\"8080\"]}") + "]",
			"expression: " + pick(`'request.path.startsWith("/anything/a")'`, `'request.method == "POST"'`, `'source.account.endsWith("/a") && request.path != "/anything"'`),
		} {
			if r.IntN(3) > 0 {
				parts = append(parts, part)
			}
		}
		if len(parts) == 0 {
			parts = append(parts, "to: [{methods: [GET]}]")
		}
		out += "  - {" + strings.Join(parts, ", ") + "}\n"
	}
	return out
}

// TestWhatIfHappens: what 'authz what-if' says of random policies, from what the proxies have recorded, is exactly what becomes of the same
// requests when each is in force.
func TestWhatIfHappens(t *testing.T) {
	m := newMesh(t)
	m.httpbin()
	var all []asked
	for _, caller := range []string{"a", "b"} {
		for _, method := range []string{"GET", "POST"} {
			for _, path := range []string{"/anything", "/anything/a", "/anything/b", "/anything/a/b"} {
				all = append(all, asked{caller, method, path})
			}
		}
	}
	// ask answers who is refused.
	ask := func() (denied []asked) {
		t.Helper()
		half := len(all) / 2
		for _, of := range [][]asked{all[:half], all[half:]} {
			script := ""
			for _, q := range of {
				script += "curl -s -o /dev/null -w '%{http_code}\\n' --max-time 10 -X " + q.method + " http://httpbin:8080" + q.path + "\n"
			}
			codes := strings.Fields(m.ok(m.as(of[0].caller, "sh", "-c", script)))
			if len(codes) != len(of) {
				t.Fatalf("%d answers: %q", len(codes), codes)
			}
			for i, code := range codes {
				switch code {
				case "200":
				case "403":
					denied = append(denied, of[i])
				default:
					t.Fatalf("%+v: %s", of[i], code)
				}
			}
		}
		return denied
	}
	// predicted answers whom a policy would refuse, by what was recorded while none was in force.
	predicted := func(policy string) (denied []asked) {
		t.Helper()
		r := m.cliInput(policy, "authz", "what-if", "-f", "-", "-o", "json")
		w := decode[advise.WhatIf](t, r.stdout)
		if len(w.Unknown) > 0 || w.Others > 0 {
			t.Fatalf("not everything is known: %s", r)
		}
		for _, f := range w.Flips {
			q := asked{f.Principal[strings.LastIndex(f.Principal, "/")+1:], f.Method, f.Path}
			if f.After == decision.Denied && !slices.Contains(denied, q) {
				denied = append(denied, q)
			}
		}
		slices.SortFunc(denied, func(a, b asked) int { return slices.Index(all, a) - slices.Index(all, b) })
		return denied
	}
	if got := ask(); len(got) > 0 {
		t.Fatalf("refused without a policy: %v", got)
	}
	eventually(t, patience, "everything is recorded", func() error {
		if got := predicted(authorize("p", "httpbin", "  action: Deny\n  rules: [{}]\n")); len(got) != len(all) {
			return fmt.Errorf("%d of %d", len(got), len(all))
		}
		return nil
	})
	refused := 0
	for seed := range uint64(12) {
		policy := authorize("p", "httpbin", randomPolicy(rand.New(rand.NewPCG(seed, 5))))
		want := predicted(policy)
		m.ok(m.cliInput(policy, "apply", "-f", "-", "--wait", "20s"))
		if got := ask(); !slices.Equal(got, want) {
			t.Errorf("seed %d: refused are %v, predicted were %v, by\n%s", seed, got, want, policy)
		}
		refused += len(want)
		m.ok(m.cliInput(policy, "delete", "-f", "-"))
	}
	if refused == 0 || refused == 12*len(all) {
		t.Errorf("%d of %d requests were refused: the policies are not random", refused, 12*len(all))
	}
	t.Logf("%d of %d requests were refused, as predicted", refused, 12*len(all))
}
