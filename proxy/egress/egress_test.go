package egress_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/proxy/egress"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

func table(t *testing.T, mode model.EgressMode) *egress.Table {
	deny := []model.Policy{{Name: "no", Action: model.ActionDeny, Rules: []model.PolicyRule{{Name: "carts", From: []model.PolicySource{{Accounts: []model.StringMatch{{Value: "shop/cart"}}}}}}}}
	post := []model.Policy{{Name: "posts", Action: model.ActionAllow, Rules: []model.PolicyRule{{Name: "post", To: []model.PolicyTarget{{Methods: []model.StringMatch{{Value: "POST"}}}}}}}}
	out, err := egress.Compile(&model.Egress{Mode: mode,
		Rules: []model.EgressRule{{Policy: "metadata", Addresses: []string{"192.0.2.0/24"}, Deny: true}, {Policy: "mail", Addresses: []string{"198.51.100.0/24"}, Ports: []uint16{25}}},
		Services: []model.EgressService{
			{Name: model.External("shop", "cloud"), Hosts: []string{"*.cloud.example"}, Ports: []uint16{443}, Original: true},
			{Name: model.External("shop", "bad"), Hosts: []string{"bad.example"}, Ports: []uint16{443}, Original: true, Policies: deny},
			{Name: model.External("shop", "pay"), Hosts: []string{"pay.example"}, Ports: []uint16{80}, Policies: post},
		}}, egress.Caller{Namespace: "shop", Account: "shop/cart"})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestExit: names that DNS said decide first, then what the program says must fit them, then rules, then the mode.
func TestExit(t *testing.T) {
	cloud := model.PortName{Service: model.External("shop", "cloud"), Port: 443}
	for _, c := range []struct {
		name  string
		mode  model.EgressMode
		to    string
		names []string
		said  string
		want  egress.Exit // By is not compared
	}{
		{"an address that nobody has named", model.EgressRegistry, "203.0.113.1:443", nil, "a.cloud.example", egress.Exit{Why: failure.EgressDenied}},
		{"likewise, where anything goes", model.EgressAny, "203.0.113.1:80", nil, "", egress.Exit{}},
		{"what only a policy bears on is looked at", model.EgressAny, "203.0.113.1:443", nil, "bad.example", egress.Exit{Why: failure.EgressDenied}},
		{"a wildcard", model.EgressRegistry, "203.0.113.1:443", []string{"a.cloud.example"}, "", egress.Exit{Service: cloud}},
		{"the bare domain is not below it", model.EgressRegistry, "203.0.113.1:443", []string{"cloud.example"}, "", egress.Exit{Why: failure.EgressDenied}},
		{"another port", model.EgressRegistry, "203.0.113.1:22", []string{"a.cloud.example"}, "", egress.Exit{Why: failure.EgressDenied}},
		{"a shared address, the right name", model.EgressRegistry, "203.0.113.1:443", []string{"a.cloud.example", "x.example"}, "a.cloud.example", egress.Exit{Service: cloud}},
		{"a shared address, a wrong name", model.EgressRegistry, "203.0.113.1:443", []string{"a.cloud.example", "x.example"}, "x.example", egress.Exit{Why: failure.EgressDenied}},
		{"a shared address, no name", model.EgressRegistry, "203.0.113.1:443", []string{"a.cloud.example", "x.example"}, "", egress.Exit{Why: failure.EgressDenied}},
		{"fronting past a denial", model.EgressAny, "203.0.113.1:443", []string{"bad.example", "x.example"}, "good.example", egress.Exit{Why: failure.EgressDenied}},
		{"another name of the same address", model.EgressAny, "203.0.113.1:443", []string{"bad.example", "x.example"}, "x.example", egress.Exit{}},
		{"a rule that denies", model.EgressAny, "192.0.2.1:80", nil, "", egress.Exit{Why: failure.EgressDenied}},
		{"a rule that allows", model.EgressRegistry, "198.51.100.1:25", nil, "", egress.Exit{}},
		{"on another port", model.EgressRegistry, "198.51.100.1:26", nil, "", egress.Exit{Why: failure.EgressDenied}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, to := table(t, c.mode), netip.MustParseAddrPort(c.to)
			got := x.Address(to, c.names)
			if got.Peek {
				got = x.Named(to, c.names, c.said, 0)
			}
			if got.Why != failure.None && !got.Said.Asked && (got.By == "" || got.Cause == "") || got.Said.Asked && got.Why != failure.None && got.Judged.Name == "" {
				t.Errorf("it is not said what refuses: %+v", got)
			}
			if got.By, got.Cause, got.Judged, got.Said = "", "", (egress.Judged{}), (egress.Said{}); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestService(t *testing.T) {
	x := table(t, model.EgressRegistry)
	pay, cloud, bad := model.PortName{Service: model.External("shop", "pay"), Port: 80}, model.PortName{Service: model.External("shop", "cloud"), Port: 443}, model.PortName{Service: model.External("shop", "bad"), Port: 443}
	request := func(to model.PortName, a *authz.Attributes, direct bool) failure.Reason {
		why, _ := x.Request(to, a, direct)
		return why
	}
	connection := func(to model.PortName, sni string, named, virtual bool, now int64) failure.Reason {
		why, _ := x.Connection(to, sni, named, virtual, now)
		return why
	}
	for _, c := range []struct {
		name string
		got  failure.Reason
		want failure.Reason
	}{
		{"its host and method", request(pay, &authz.Attributes{Host: "pay.example", Method: "POST", Path: "/"}, true), failure.None},
		{"another method", request(pay, &authz.Attributes{Host: "pay.example", Method: "GET", Path: "/"}, true), failure.EgressDenied},
		{"another host", request(pay, &authz.Attributes{Host: "x.example", Method: "POST", Path: "/"}, true), failure.EgressDenied},
		{"another host, by a route", request(pay, &authz.Attributes{Host: "reviews", Method: "POST", Path: "/"}, false), failure.None},
		{"one that is not told", request(model.PortName{Service: model.External("x", "y"), Port: 80}, &authz.Attributes{}, false), failure.EgressDenied},
		{"a server name below", connection(cloud, "a.cloud.example", true, false, 0), failure.None},
		{"another server name", connection(cloud, "evil.example", true, false, 0), failure.EgressDenied},
		{"none", connection(cloud, "", true, false, 0), failure.EgressDenied},
		{"a virtual address that leads nowhere", connection(cloud, "a.cloud.example", true, true, 0), failure.EgressDenied},
		{"denied to this caller", connection(bad, "bad.example", true, false, 0), failure.EgressDenied},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
	if n, virtual, ok := x.Host("pay.example"); !ok || !virtual || n != pay.Service {
		t.Errorf("pay.example is %v, %v, %v", n, virtual, ok)
	}
	if _, virtual, ok := x.Host("a.b.cloud.example"); !ok || virtual {
		t.Error("a wildcard is looked up by the program")
	}
	if _, _, ok := x.Host("x.example"); ok {
		t.Error("x.example is nobody's")
	}
}

// TestSaid: what the policies of an ExternalService say is answered whole, what those in dry run and those that audit say too.
func TestSaid(t *testing.T) {
	cart := []model.PolicyRule{{Name: "r", From: []model.PolicySource{{Accounts: []model.StringMatch{{Value: "shop/cart"}}}}}}
	name := model.External("shop", "bank")
	x, err := egress.Compile(&model.Egress{Mode: model.EgressAny, Services: []model.EgressService{{Name: name, Hosts: []string{"bank.example"}, Ports: []uint16{443}, Original: true, Policies: []model.Policy{
		{Name: "yes", Action: model.ActionAllow, Rules: cart}, {Name: "seen", Action: model.ActionAudit, Rules: cart}, {Name: "trial", Action: model.ActionDeny, DryRun: true, Rules: cart}}}}},
		egress.Caller{Namespace: "shop", Account: "shop/cart"})
	if err != nil {
		t.Fatal(err)
	}
	to := model.PortName{Service: name, Port: 443}
	_, request := x.Request(to, &authz.Attributes{Host: "bank.example"}, true)
	_, connection := x.Connection(to, "bank.example", true, false, 0)
	for what, said := range map[string]egress.Said{"request": request, "connection": connection, "address": x.Named(netip.MustParseAddrPort("203.0.113.9:443"), nil, "bank.example", 0).Said} {
		if !said.Asked || !said.Allowed || said.By == nil || said.By.Policy != "yes" || said.Audit == nil || said.Audit.Policy != "seen" || !said.Dry || said.DryBy == nil || said.DryBy.Policy != "trial" {
			t.Errorf("%s: %+v", what, said)
		}
	}
	if _, said := x.Connection(to, "x.example", true, false, 0); said.Asked {
		t.Error("policies are asked about another host")
	}
}

// TestNamedInTime: a rule that is over does not let out what the program names itself, nor does one deny before it begins.
func TestNamedInTime(t *testing.T) {
	x, err := egress.Compile(&model.Egress{Services: []model.EgressService{{Name: model.External("default", "bank"), Hosts: []string{"bank.example"}, Ports: []uint16{443},
		Policies: []model.Policy{
			{Name: "allow", Action: model.ActionAllow, Rules: []model.PolicyRule{{Name: "until", Ends: 100}}},
			{Name: "deny", Action: model.ActionDeny, Rules: []model.PolicyRule{{Name: "from", Begins: 50, Ends: 60}}},
		}}}}, egress.Caller{})
	if err != nil {
		t.Fatal(err)
	}
	for now, want := range map[int64]failure.Reason{10: failure.None, 55: failure.EgressDenied, 70: failure.None, 200: failure.EgressDenied} {
		if got := x.Named(netip.MustParseAddrPort("203.0.113.9:443"), nil, "bank.example", now); got.Why != want {
			t.Errorf("at %d: %v", now, got.Why)
		}
	}
}

// TestMovesOfServices: it is known when time alone changes what may leave.
func TestMovesOfServices(t *testing.T) {
	of := func(name string, r model.PolicyRule) model.EgressService {
		return model.EgressService{Name: model.External("default", name), Hosts: []string{name + ".example"}, Policies: []model.Policy{{Name: name, Action: model.ActionAllow, Rules: []model.PolicyRule{r}}}}
	}
	x, err := egress.Compile(&model.Egress{Services: []model.EgressService{{Name: model.External("default", "open")},
		of("bank", model.PolicyRule{Name: "until", Ends: 100}), of("shop", model.PolicyRule{Name: "from", Begins: 50, Ends: 200})}}, egress.Caller{})
	if err != nil {
		t.Fatal(err)
	}
	for now, want := range map[int64]int64{0: 50, 50: 100, 99: 100, 100: 200, 200: 0} {
		if got := x.Moves(now); got != want {
			t.Errorf("after %d: %d, want %d", now, got, want)
		}
	}
}

func TestMemory(t *testing.T) {
	var m egress.Memory
	a := netip.MustParseAddr("203.0.113.1")
	m.Learn("a.example", []netip.Addr{a}, 0)
	m.Learn("b.example", []netip.Addr{a}, 30*time.Minute)
	if got := m.Names(a, time.Hour); len(got) != 2 {
		t.Errorf("names %v", got)
	}
	if got := m.Names(a, 80*time.Minute); len(got) != 1 || got[0] != "b.example" {
		t.Errorf("names %v", got)
	}
	for i := range 10000 {
		m.Learn("c.example", []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, 81*time.Minute)
	}
	if got := m.Names(netip.MustParseAddr("10.0.39.15"), 81*time.Minute); len(got) != 1 {
		t.Errorf("the newest is not known: %v", got)
	}
}
