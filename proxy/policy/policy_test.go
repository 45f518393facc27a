package policy_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/sim"
)

// thing is something that is open.
type thing struct {
	slot  int
	asked int
	open  *policy.Open
	ends  bool
}

func (t *thing) Slot() *int { return &t.slot }
func (t *thing) Judge(*policy.Rules) {
	t.asked++
	if t.ends {
		t.open.Remove(t)
	}
}

// TestReview: everything that was open is asked about once, whatever comes and goes meanwhile; what ends leaves a gap that
// somebody else fills.
func TestReview(t *testing.T) {
	for _, every := range []int{0, 1, 2, 3} {
		w := sim.New(sim.Config{Seed: uint64(every)})
		l := w.NewLoop(netip.MustParseAddr("10.0.0.1"))
		in := policy.New(policy.Config{})
		var open policy.Open
		var all []*thing
		for i := range 1000 {
			x := &thing{open: &open, ends: every > 0 && i%every == 0}
			all = append(all, x)
			open.Add(x)
		}
		l.Post(func() { open.Review(l, in) })
		fresh := &thing{open: &open}
		l.Post(func() { // between two turns: some end by themselves, one comes
			for _, x := range all[:100] {
				open.Remove(x)
			}
			open.Remove(all[500])
			open.Remove(all[500])
			open.Add(fresh)
		})
		w.Run(1e9)
		left := 0
		for i, x := range all {
			gone := i < 100 || i == 500
			if x.asked == 0 && !gone || x.asked > 2 {
				t.Errorf("every %d: thing %d was asked about %d times", every, i, x.asked)
			}
			if !gone && !x.ends {
				left++
			}
		}
		if open.Len() != left+1 {
			t.Errorf("every %d: %d are open, want %d", every, open.Len(), left+1)
		}
		for _, x := range append(all, fresh) {
			open.Remove(x)
		}
		if open.Len() != 0 {
			t.Errorf("%d are left", open.Len())
		}
	}
}

// TestLog: a line names what decided or what was missing, one caller does not use up the lines of others, and all are bounded.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	in := policy.New(policy.Config{Log: slog.New(slog.NewTextHandler(&log, nil)), Lines: 5})
	ask := func(now int64, from, path string) record.Decision {
		var d record.Decision
		a := authz.Attributes{Now: now, HTTP: true, Method: "GET", Path: path}
		policy.NewCaller(spiffe.ID{TrustDomain: "t", Namespace: "n", ServiceAccount: from}, netip.MustParseAddr("10.0.0.1"), 80).Fill(&a)
		in.Rules().Request(&a, &d, []byte("id-1"))
		return d
	}
	if d := ask(1, "a", "/"); d.Verdict != record.Denied || !strings.Contains(log.String(), "has not said yet") {
		t.Errorf("%+v\n%s", d, log.String())
	}
	deny := model.Policy{Name: "AuthorizationPolicy/n/no", Action: model.ActionDeny, Rules: []model.PolicyRule{{Name: "mine",
		From: []model.PolicySource{{Accounts: []model.StringMatch{{Kind: model.StringExact, Value: "n/a"}}}}}}}
	if err := in.Set(&model.Security{DenyByDefault: true, Policies: []model.Policy{deny}}); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	if d := ask(2, "a", "/"+strings.Repeat("x", 10_000)+"\n\x1b[2J"); d.Policy != deny.Name || d.Rule != "mine" || d.Absent {
		t.Errorf("%+v", d)
	}
	if text := log.String(); !strings.Contains(text, "policy=AuthorizationPolicy/n/no rule=mine") || !strings.Contains(text, "request_id=id-1") || len(text) > 1000 || strings.ContainsRune(text, '\x1b') {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	for range 100 {
		ask(2, "a", "/")
	}
	if d := ask(2, "b", "/"); !d.Absent || d.Nearest == "" {
		t.Errorf("%+v", d)
	}
	for i := range 100 {
		ask(2, fmt.Sprint("c", i), "/")
	}
	if n := strings.Count(log.String(), "\n"); n > 5 || !strings.Contains(log.String(), "sa/b") {
		t.Errorf("%d lines\n%s", n, log.String())
	}
	ask(3, "a", "/")
	if !strings.Contains(log.String(), "not_logged=") {
		t.Error("nobody tells that lines are missing")
	}
}

// TestLogDry: what policies in dry run would decide otherwise is said with policy and rule, and takes no room from denials.
func TestLogDry(t *testing.T) {
	var log bytes.Buffer
	in := policy.New(policy.Config{Log: slog.New(slog.NewTextHandler(&log, nil)), Lines: 2})
	account := func(name string) []model.PolicySource {
		return []model.PolicySource{{Accounts: []model.StringMatch{{Value: "n/" + name}}}}
	}
	if err := in.Set(&model.Security{Policies: []model.Policy{
		{Name: "AuthorizationPolicy/n/trial", Action: model.ActionDeny, DryRun: true, Rules: []model.PolicyRule{{Name: "new", From: account("a")}}},
		{Name: "AuthorizationPolicy/n/no", Action: model.ActionDeny, Rules: []model.PolicyRule{{Name: "old", From: account("b")}}}}}); err != nil {
		t.Fatal(err)
	}
	ask := func(from string, n int) record.Decision {
		var d record.Decision
		a := authz.Attributes{Now: 7, HTTP: true, Method: fmt.Sprint("M", n), Path: "/"}
		policy.NewCaller(spiffe.ID{TrustDomain: "t", Namespace: "n", ServiceAccount: from}, netip.MustParseAddr("10.0.0.1"), 80).Fill(&a)
		in.Rules().Request(&a, &d, []byte("id-1"))
		return d
	}
	for n := range 50 {
		if d := ask("a", n); d.Verdict != record.Allowed || d.Dry != record.Denied || d.DryRule != "new" {
			t.Fatalf("%+v", d)
		}
	}
	ask("b", 0)
	text := log.String()
	if n := strings.Count(text, "authz_dry_run"); n != 2 || !strings.Contains(text, "dry_run=denied dry_run_policy=AuthorizationPolicy/n/trial dry_run_rule=new") || !strings.Contains(text, "request_id=id-1") {
		t.Errorf("%d lines:\n%s", n, text)
	}
	if strings.Count(text, "authz_denied") != 1 {
		t.Errorf("the denial is not said:\n%s", text)
	}
}
