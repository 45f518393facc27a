package authz_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/authz/cel"
)

// TestMoves: the next second in which time alone changes what holds; what is in dry run, or about other workloads, changes nothing.
func TestMoves(t *testing.T) {
	rule := func(begins, ends int64) model.PolicyRule {
		return model.PolicyRule{Name: "r", Begins: begins, Ends: ends}
	}
	compile := func(policies ...model.Policy) *authz.Set {
		t.Helper()
		set, err := authz.Compile(&model.Security{Policies: policies}, []model.Label{{Name: "app", Value: "cart"}}, cel.Compile)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	bound := model.Policy{Name: "p", Rules: []model.PolicyRule{rule(100, 300), rule(0, 200), rule(200, 0), rule(0, 0)}}
	for now, want := range map[int64]int64{0: 100, 99: 100, 100: 200, 199: 200, 200: 300, 299: 300, 300: 0, 1000: 0} {
		if got := compile(bound).Moves(now); got != want {
			t.Errorf("after %d: %d, want %d", now, got, want)
		}
	}
	dry, others := bound, bound
	dry.DryRun, others.Labels = true, []model.Label{{Name: "app", Value: "web"}}
	clock := model.Policy{Name: "c", Rules: []model.PolicyRule{{Name: "r", Expression: `now.getHours() < 18`}}}
	still := model.Policy{Name: "s", Rules: []model.PolicyRule{{Name: "r", Expression: `request.method == "GET"`}}}
	for name, c := range map[string]struct {
		of   model.Policy
		want int64
	}{"dry run": {dry, 0}, "other workloads": {others, 0}, "an expression with the time": {clock, 8}, "an expression without": {still, 0}} {
		if got := compile(c.of).Moves(7); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
