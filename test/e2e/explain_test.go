//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/control/advise"
	"github.com/tulle-mesh/tulle/model/flight"
)

// TestLeastPrivilege: what was observed becomes a policy that allows it and nobody else; what would change is told before it does; and
// what was denied is explained by both proxies.
func TestLeastPrivilege(t *testing.T) {
	m := newMesh(t)
	m.podinfo("hello", "--service", "reviews")
	for i := range 3 {
		m.curl(fmt.Sprintf("http://reviews:8080/status/20%d?secret=1", i))
	}
	m.ok(m.finish(m.runCommand([]string{"--service", "other"}, "curl", "-sS", "--fail", "-X", "POST", "-d", "x", "http://reviews:8080/echo")))

	var list []advise.Suggestion
	eventually(t, patience, "the control plane has heard of both callers", func() error {
		r := m.cli("authz", "suggest", "--service", "reviews", "-o", "json")
		if r.code != 0 {
			return errors.New(r.stderr)
		}
		list = decode[[]advise.Suggestion](t, r.stdout)
		if len(list) != 1 || len(list[0].Rules) != 2 {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	if u := list[0].Rules[1]; u.Rule != "shell" || u.Count != 3 || u.What != "GET /status/202" || u.Request == "" {
		t.Errorf("%+v", u)
	}
	text := m.ok(m.cli("authz", "suggest", "--service", "reviews", "-o", "yaml"))
	if !strings.Contains(text, "- /status/{id}") || strings.Contains(text, "secret") {
		t.Errorf("suggested:\n%s", text)
	}

	// The control plane that comes after this one knows it too.
	m.control.killAll()
	m.up()
	if again := m.ok(m.cli("authz", "suggest", "--service", "reviews", "-o", "yaml")); again != text {
		t.Errorf("after a restart:\n%s\nbefore it:\n%s", again, text)
	}

	// All that was observed stays allowed by the suggestion; without the rule of one caller it would lose.
	file := filepath.Join(m.dir, "least.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := m.ok(m.cli("authz", "what-if", "-f", file)); !strings.Contains(out, "0 of 4 recorded requests change") {
		t.Error(out)
	}
	lesser := strings.Replace(text, "sa/other", "sa/nobody", 1)
	r := m.cliInput(lesser[strings.Index(lesser, "---"):], "authz", "what-if", "-f", "-", "-o", "json")
	if w := decode[advise.WhatIf](t, r.stdout); r.code != 1 || len(w.Flips) != 1 || w.Flips[0].Path != "/echo" || w.Flips[0].After != "denied" || len(w.Affected) != 1 {
		t.Errorf("%s", r)
	}

	// Addresses and expressions are decided exactly, for what was recorded with them.
	for rule, want := range map[string]int{"from: [{ipBlocks: [0.0.0.0/0, \"::/0\"]}]": 2, "from: [{ipBlocks: [203.0.113.0/24]}]": 0, `expression: '!source.ip.within("203.0.113.0/24")'`: 2} {
		policy := "apiVersion: tulle.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: near}\nspec:\n  action: Deny\n  targetRefs: [{group: '', kind: Service, name: reviews}]\n  rules:\n  - " + rule + "\n"
		r := m.cliInput(policy, "authz", "what-if", "-f", "-", "-o", "json")
		if w := decode[advise.WhatIf](t, r.stdout); len(w.Unknown) != 0 || len(w.Affected) != want {
			t.Errorf("%s: %s", rule, r)
		}
	}

	m.ok(m.cli("apply", "-f", file, "--wait", "20s"))
	if r := m.cli("check", "--strict", "--service", "nosuch"); r.code == 0 || !strings.Contains(r.stderr, "there is no Service nosuch") {
		t.Errorf("of a service that is not there: %s", r)
	}
	if r := m.cli("authz", "what-if", "--delete", "authorizationpolicy/reviews-observed"); !strings.Contains(r.stdout, "recorded requests change") || r.code > 1 {
		t.Errorf("without the policy: %s", r)
	}
	m.curl("http://reviews:8080/status/204")
	// A caller that stays, so that its proxy can be asked; its admin socket is in a folder that 'tulle explain' does not know of.
	far := *m
	far.data = filepath.Join(m.dir, "far")
	who := far.run([]string{"--service", "stranger", "--control", m.grpc, "--token", strings.TrimSpace(m.ok(m.cli("token", "--any")))}, "sh", "-c", "curl -sS -H 'x-request-id: who-is-it' -o /dev/null -w 'got %{http_code}\\n' http://reviews:8080/status/200; exec sleep 60")
	eventually(t, patience, "the stranger is answered", func() error {
		if !strings.Contains(who.stdout(), "got 403") {
			return fmt.Errorf("%s", who.stdout())
		}
		return nil
	})
	views := decode[[]flight.Explained](t, m.ok(m.cli("explain", "who-is-it", "-o", "json")))
	if len(views) != 2 || views[0].Direction != "outbound" || views[0].Service != "stranger" || len(views[0].Attempts) != 1 || views[1].Direction != "inbound" {
		t.Fatalf("%+v", views)
	}
	d := views[1].Decision
	if d == nil || d.Verdict != "denied" || !d.Absent || !strings.Contains(d.Nearest, "AuthorizationPolicy/default/reviews-observed") || !strings.Contains(d.Nearest, "principal") || views[1].Status != 403 {
		t.Errorf("%+v: %+v", views[1], d)
	}
	said := m.ok(m.cli("explain", "--service", "reviews", "--denied", "--last", "1"))
	t.Log("\n" + said)
	for _, part := range []string{"who-is-it", "denied because nothing allows it", "nearest   AuthorizationPolicy/default/reviews-observed", "/sa/stranger → ", "attempt 1 reviews-", "one of 1"} {
		if !strings.Contains(said, part) {
			t.Errorf("without %q:\n%s", part, said)
		}
	}
	if r := m.cli("explain", "never-seen"); r.code != 1 || !strings.Contains(r.stderr, "remembers request never-seen") {
		t.Error(r)
	}
}
