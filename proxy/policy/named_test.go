package policy_test

import (
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
	"github.com/tulle-mesh/tulle/proxy/policy"
)

// assertions are where tokens are.
type assertions struct{}

func (assertions) Secret(kind model.ConditionKind, name string) bool {
	return kind == model.ConditionHeader && name == "x-assertion"
}

// TestNamed: what policies look at is told, but no credential, and nothing that is too long; and without an allocation.
func TestNamed(t *testing.T) {
	p := policy.New(policy.Config{})
	one := model.PolicyRule{Name: "r"}
	for _, n := range []string{"X-Team", "authorization", "x-long", "x-none", "x-many", "x-assertion"} {
		one.When = append(one.When, model.PolicyCondition{Kind: model.ConditionHeader, Name: n})
	}
	one.When = append(one.When, model.PolicyCondition{Kind: model.ConditionQuery, Name: "page"}, model.PolicyCondition{Kind: model.ConditionCookie, Name: "sid"})
	if err := p.Set(&model.Security{Policies: []model.Policy{{Name: "p", Action: model.ActionAllow, DryRun: true, Rules: []model.PolicyRule{one}}}}); err != nil {
		t.Fatal(err)
	}
	a := &authz.Attributes{Port: 80, HTTP: true, Fields: decision.Fields{{Name: "x-team", Values: []string{"blue", "red"}}, {Name: "authorization", Values: []string{"Bearer x"}},
		{Name: "x-assertion", Values: []string{"eyJ"}}, {Name: "x-long", Values: []string{strings.Repeat("x", decision.MaxValue+1)}}, {Name: "x-many", Values: []string{"1", "2", "3", "4", "5"}},
		{Kind: model.ConditionQuery, Name: "page", Values: []string{"2"}}, {Kind: model.ConditionCookie, Name: "sid", Values: []string{"s"}}, {Name: "x-other", Values: []string{"o"}}}}
	b := p.Rules().Named(nil, a, assertions{})
	if string(b) != "h:x-team=blue&h:x-team=red&h:x-none&q:page=2" {
		t.Errorf("%s", b)
	}
	if n := testing.AllocsPerRun(100, func() { b = p.Rules().Named(b[:0], a, assertions{}) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
