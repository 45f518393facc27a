package proxy

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/egress"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/live"
)

// beyond is an outside that logs as a workload's proxy does: what is below WARN is not written.
func beyond(t *testing.T, m *model.Egress) (*outside, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	p := &Proxy{cfg: Config{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))}}
	p.outside.p, p.live = p, live.New(live.Config{})
	table, err := egress.Compile(m, egress.Caller{Principal: "spiffe://tulle.local/ns/shop/sa/cart", Namespace: "shop", Account: "shop/cart"})
	if err != nil {
		t.Fatal(err)
	}
	p.outside.table.Store(table)
	return &p.outside, &log
}

// TestEgressTold: of what may not leave the mesh the log and the record say which mode, rule or policy refused it, and the nearest
// rule; what policies in dry run would refuse is logged likewise; and lines are bounded.
func TestEgressTold(t *testing.T) {
	allow := func(name, account string, dry bool) model.Policy {
		action := model.ActionAllow
		if dry {
			action = model.ActionDeny
		}
		return model.Policy{Name: name, Action: action, DryRun: dry, Rules: []model.PolicyRule{{Name: "r", From: []model.PolicySource{{Accounts: []model.StringMatch{{Value: account}}}}}}}
	}
	bank, shop := model.External("shop", "bank"), model.External("shop", "post")
	o, log := beyond(t, &model.Egress{Mode: model.EgressRegistry,
		Rules: []model.EgressRule{{Policy: "MeshConfig/mesh no-lab", Addresses: []string{"198.51.100.0/24"}, Deny: true}},
		Services: []model.EgressService{
			{Name: bank, Hosts: []string{"bank.example"}, Ports: []uint16{443}, Policies: []model.Policy{allow("AuthorizationPolicy/shop/bank", "shop/till", false)}},
			{Name: shop, Hosts: []string{"post.example"}, Ports: []uint16{443}, Policies: []model.Policy{allow("AuthorizationPolicy/shop/trial", "shop/cart", true)}}}})
	now := time.Unix(1_800_000_000, 0)
	wants := func(what string, parts ...string) {
		t.Helper()
		for _, part := range append(parts, "level=WARN") {
			if !strings.Contains(log.String(), part) {
				t.Errorf("%s: without %q:\n%s", what, part, log.String())
			}
		}
		log.Reset()
	}
	if e := o.Address(netip.MustParseAddrPort("203.0.113.5:443")); e.Why != failure.EgressDenied || e.Said.Refusal.By != "MeshConfig/mesh mode Registry" || e.Said.Refusal.Cause == "" {
		t.Errorf("mode: %+v", e)
	}
	wants("mode", "msg=egress_denied", "address=203.0.113.5:443", `policy="MeshConfig/mesh mode Registry"`, "why=")
	if e := o.Address(netip.MustParseAddrPort("198.51.100.9:25")); e.Said.Refusal.By != "MeshConfig/mesh no-lab" {
		t.Errorf("rule: %+v", e)
	}
	wants("rule", "address=198.51.100.9:25", `policy="MeshConfig/mesh no-lab"`)

	var d record.Decision
	to := model.PortName{Service: bank, Port: 443}
	a := authz.Attributes{Now: now.Unix(), Method: "GET", Path: "/secret", Host: "bank.example"}
	if why := o.Request(to, to, &a, &d, []byte("id-7")); why != failure.EgressDenied || !d.Absent || !strings.Contains(d.Nearest, "AuthorizationPolicy/shop/bank r: service account shop/cart instead of shop/till") {
		t.Errorf("request: %v %+v", why, d)
	}
	wants("request", "msg=egress_denied", "service=external~bank.shop:443", "request_id=id-7", "nearest=", "path=/secret")
	d = record.Decision{}
	if why := o.Connection(to, to, "bank.example", netip.MustParseAddr("203.0.113.5"), now, &d); why != failure.EgressDenied || d.Nearest == "" {
		t.Errorf("connection: %v %+v", why, d)
	}
	wants("connection", "address=203.0.113.5", "name=bank.example", "nearest=")
	a = authz.Attributes{Now: now.Unix(), Method: "GET", Path: "/", Host: "x.example"}
	d = record.Decision{}
	if why := o.Request(to, to, &a, &d, nil); why != failure.EgressDenied || d.Verdict != record.Unasked || d.Refusal.Cause != "the request's host is none of its hosts" {
		t.Errorf("host: %v %+v", why, d)
	}
	wants("host", "name=x.example", "none of its hosts")

	to = model.PortName{Service: shop, Port: 443}
	a = authz.Attributes{Now: now.Unix(), Method: "GET", Path: "/", Host: "post.example"}
	if why := o.Request(to, to, &a, &d, []byte("id-8")); why != failure.None || d.Dry != record.Denied {
		t.Errorf("dry run: %v %+v", why, d)
	}
	wants("dry run", "msg=egress_dry_run", "dry_run=denied", "dry_run_policy=AuthorizationPolicy/shop/trial", "request_id=id-8")

	to = model.PortName{Service: bank, Port: 443}
	for i := range 1000 {
		a = authz.Attributes{Now: now.Unix() + 5, Method: "GET", Path: "/", Host: "bank.example"}
		if i%2 == 0 {
			a.Method = strings.Repeat("M", i/2+1)
		}
		o.Request(to, to, &a, &d, nil)
	}
	if n := strings.Count(log.String(), "\n"); n == 0 || n > 10 {
		t.Errorf("%d lines in a second", n)
	}
}
