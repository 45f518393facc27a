package authz_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
)

// TestFederated: an identity of another mesh gets in only by a rule that allows and names its trust domain or it, whatever the default
// is and whatever else is allowed; what denies counts for it as for everybody.
func TestFederated(t *testing.T) {
	prefix := func(s string) []model.StringMatch { return []model.StringMatch{{Kind: model.StringPrefix, Value: s}} }
	any := []model.StringMatch{{Kind: model.StringRegex, Value: ".+"}}
	const them = "spiffe://other.example/ns/shop/sa/web"
	for name, c := range map[string]struct {
		source model.PolicySource
		in     bool
		admits bool
	}{
		"anybody":                        {model.PolicySource{}, false, false},
		"its namespace":                  {model.PolicySource{Namespaces: exact("shop")}, false, false},
		"its account":                    {model.PolicySource{Accounts: exact("shop/web")}, false, false},
		"its address":                    {model.PolicySource{IPs: []string{"0.0.0.0/0", "::/0"}}, false, false},
		"every principal":                {model.PolicySource{Principals: any}, false, false},
		"every trust domain":             {model.PolicySource{TrustDomains: any}, false, false},
		"every trust domain but ours":    {model.PolicySource{NotTrustDomains: exact("tulle.local")}, false, false},
		"principals that end so":         {model.PolicySource{Principals: []model.StringMatch{{Kind: model.StringSuffix, Value: "/sa/web"}}}, false, false},
		"all SPIFFE IDs":                 {model.PolicySource{Principals: prefix("spiffe://")}, false, false},
		"a domain that begins so":        {model.PolicySource{Principals: prefix("spiffe://other.example")}, false, false},
		"another one of that domain":     {model.PolicySource{Principals: exact("spiffe://other.example/ns/shop/sa/cart")}, false, true},
		"another domain":                 {model.PolicySource{TrustDomains: exact("third.example")}, false, false},
		"its trust domain":               {model.PolicySource{TrustDomains: exact("other.example")}, true, true},
		"its trust domain and namespace": {model.PolicySource{TrustDomains: exact("other.example"), Namespaces: exact("shop")}, true, true},
		"its trust domain, elsewhere":    {model.PolicySource{TrustDomains: exact("other.example"), Namespaces: exact("bank")}, false, true},
		"it":                             {model.PolicySource{Principals: exact(them)}, true, true},
		"those that begin so":            {model.PolicySource{Principals: prefix("spiffe://other.example/ns/shop/")}, true, true},
	} {
		for _, extra := range []model.Policy{allow("everybody", model.PolicyRule{Name: "all"}), {Name: "dry", Action: model.ActionAllow, DryRun: true,
			Rules: []model.PolicyRule{from(model.PolicySource{TrustDomains: exact("other.example")})}}} {
			set, err := authz.Compile(&model.Security{Policies: []model.Policy{allow("p", from(c.source)), extra}}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			a := &authz.Attributes{Principal: them, TrustDomain: "other.example", Namespace: "shop", Account: "shop/web", Port: 80, HTTP: true, Method: "GET", Path: "/", Federated: true}
			if v := set.Request(a); v.Allowed != c.in {
				t.Errorf("%s, beside %s: %+v", name, extra.Name, v)
			}
			if v := set.Connection(a); v.Allowed != c.in {
				t.Errorf("%s, beside %s, a connection: %+v", name, extra.Name, v)
			}
			if set.Admits("other.example") != c.admits {
				t.Errorf("%s: admits %v", name, !c.admits)
			}
			if rule, missing := set.Nearest(a, true); !c.in && (rule == nil || len(missing) == 0) {
				t.Errorf("%s: nothing is missing", name)
			}
		}
		if !c.in {
			continue
		}
		set, err := authz.Compile(&model.Security{Policies: []model.Policy{allow("p", from(c.source)), deny("d", from(model.PolicySource{Namespaces: exact("shop")}))}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if v := set.Request(&authz.Attributes{Principal: them, TrustDomain: "other.example", Namespace: "shop", Account: "shop/web", Federated: true, HTTP: true}); v.Allowed {
			t.Errorf("%s: denied, and let in", name)
		}
	}
	empty, err := authz.Compile(&model.Security{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v := empty.Request(&authz.Attributes{Principal: them, TrustDomain: "other.example", Federated: true}); v.Allowed || !v.Absent {
		t.Errorf("without any policy: %+v", v)
	}
}
