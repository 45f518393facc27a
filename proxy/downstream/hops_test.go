package downstream_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/egress"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/token"
)

// TestTrustedHops: on a published port the remote address is what the outermost of the trusted proxies has written, and never what
// a client puts before that; the list that the program gets ends with the peer all the same. Between proxies nothing is believed.
func TestTrustedHops(t *testing.T) {
	const peer = "127.0.0.1"
	program := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Join(r.Header["X-Forwarded-For"], "|"))
	})
	for _, c := range []struct {
		hops    int
		mesh    bool
		fields  []string // x-forwarded-for
		remote  string   // the address that counts
		program string
	}{
		{0, false, nil, peer, peer},
		{0, false, []string{"10.9.9.9"}, peer, "10.9.9.9, " + peer},
		{1, false, nil, peer, peer},
		{1, false, []string{"10.9.9.9"}, "10.9.9.9", "10.9.9.9, " + peer},
		{1, false, []string{"1.1.1.1, 10.9.9.9"}, "10.9.9.9", "1.1.1.1, 10.9.9.9, " + peer},
		{1, false, []string{"1.1.1.1", "10.9.9.9"}, "10.9.9.9", "1.1.1.1, 10.9.9.9, " + peer},
		{1, false, []string{"1.1.1.1,10.9.9.9"}, "10.9.9.9", "1.1.1.1,10.9.9.9, " + peer},
		{1, false, []string{" 10.9.9.9 "}, "10.9.9.9", "10.9.9.9, " + peer},
		{1, false, []string{"10.9.9.9", ""}, peer, "10.9.9.9, , " + peer},
		{1, false, []string{"10.9.9.9,"}, peer, "10.9.9.9,, " + peer},
		{1, false, []string{"unknown"}, peer, "unknown, " + peer},
		{1, false, []string{"10.9.9.9:80"}, peer, "10.9.9.9:80, " + peer},
		{1, false, []string{"10.9.9.9%eth0"}, peer, "10.9.9.9%eth0, " + peer},
		{1, false, []string{"::ffff:10.9.9.9"}, "10.9.9.9", "::ffff:10.9.9.9, " + peer},
		{1, false, []string{"2001:db8::1"}, "2001:db8::1", "2001:db8::1, " + peer},
		{1, false, []string{"fe80::1%lo"}, peer, "fe80::1%lo, " + peer},
		{1, false, []string{strings.Repeat("1", 100)}, peer, strings.Repeat("1", 100) + ", " + peer},
		{2, false, []string{"1.1.1.1, 10.9.9.9"}, "1.1.1.1", "1.1.1.1, 10.9.9.9, " + peer},
		{2, false, []string{"3.3.3.3, 1.1.1.1, 10.9.9.9"}, "1.1.1.1", "3.3.3.3, 1.1.1.1, 10.9.9.9, " + peer},
		{2, false, []string{"10.9.9.9"}, peer, "10.9.9.9, " + peer},
		{2, true, []string{"1.1.1.1, 10.9.9.9"}, peer, "1.1.1.1, 10.9.9.9"},
	} {
		for _, allowed := range []bool{true, false} {
			from := c.remote
			if !allowed {
				from = "192.0.2.77"
			}
			in := policy.New(policy.Config{})
			p := only(model.ActionAllow, "from", model.PolicyRule{From: []model.PolicySource{{RemoteIPs: []string{netip.PrefixFrom(netip.MustParseAddr(from), netip.MustParseAddr(from).BitLen()).String()}, IPs: []string{peer + "/32"}}}})
			if err := in.Set(&model.Security{Policies: []model.Policy{p}, TrustedHops: uint32(c.hops)}); err != nil {
				t.Fatal(err)
			}
			o := inbound(addrOf(t, program))
			o.Policies, o.Publish, o.Mesh, o.Remote = in, !c.mesh, c.mesh, netip.MustParseAddrPort(peer+":7")
			o.Caller = policy.NewCaller(account("web"), o.Remote.Addr(), 80)
			hop := newHop(t, setup{origin: o})
			head := "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
			for _, f := range c.fields {
				head += "X-Forwarded-For: " + f + "\r\n"
			}
			want := "200 " + c.program
			if !allowed {
				want = "403"
			}
			if got := answered(t, hop.addr, head+"\r\n"); got != want {
				t.Errorf("%d hops, mesh %v, %q, from %s: %q, want %q", c.hops, c.mesh, c.fields, from, got, want)
			}
		}
	}
}

// TestNoAllocationUnasked: a policy with an external authorizer that has not to be asked about the request, an issuer whose tokens it
// does not bear, and trusted hops cost no memory.
func TestNoAllocationUnasked(t *testing.T) {
	in := policy.New(policy.Config{})
	security := &model.Security{TrustedHops: 1, Policies: []model.Policy{external(), only(model.ActionDeny, "far", model.PolicyRule{From: []model.PolicySource{{RemoteIPs: []string{"192.0.2.0/24"}}}})},
		Authorizers: []model.Authorizer{{Name: external().Name}},
		Tokens: []model.TokenIssuer{{Issuer: "me", Keys: `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`, Algorithms: []string{"EdDSA"}, From: []model.TokenPlace{{Header: "authorization", Prefix: "Bearer "}, {Query: "t"}, {Cookie: "t"}},
			RequiredPaths: []model.PolicyPath{{Match: model.StringMatch{Value: "/in"}}}}}}
	if err := in.Set(security); err != nil {
		t.Fatal(err)
	}
	ring := token.NewRing(token.Config{})
	t.Cleanup(ring.Close)
	guards, keep, err := ring.Guards(security, nil, []uint16{80})
	if err != nil {
		t.Fatal(err)
	}
	keep()
	o := inbound(fixed(t))
	o.Policies, o.Caller, o.Tokens = in, policy.NewCaller(account("web"), netip.MustParseAddr("10.0.0.1"), 80), &token.InForce{}
	o.Publish, o.Remote = true, netip.MustParseAddrPort("10.0.0.1:7")
	o.Tokens.Set(guards[80])
	p := newHop(t, setup{origin: o, worker: exchange.Config{Consult: authorizer(nil)}})
	one := drive(t, p)
	one()
	p.log.forget()
	noAllocation(t, 0, one)
}

// TestNoAllocationEgress: a request to an ExternalService, with policies about its path and query, in dry run and for audit too, costs no
// memory, and the record has what they say.
func TestNoAllocationEgress(t *testing.T) {
	dest, called := leading(t, "bank", fixed(t))
	may, trial := &exits{t: t}, only(model.ActionDeny, "trial", rule("web"))
	trial.DryRun = true
	table, err := egress.Compile(&model.Egress{Mode: model.EgressRegistry, Services: []model.EgressService{{Name: called.Service, Hosts: []string{"*.example", "cart"}, Ports: []uint16{80}, Policies: []model.Policy{
		only(model.ActionAllow, "yes", rule("web", model.PolicyTarget{Methods: exactly("GET"), Paths: []model.PolicyPath{{Template: true, Match: model.StringMatch{Value: "/products/{id}"}}}})),
		only(model.ActionDeny, "no", model.PolicyRule{When: []model.PolicyCondition{{Kind: model.ConditionQuery, Name: "color", Values: exactly("blue")}}}),
		only(model.ActionAudit, "seen", rule("web")), trial}}}},
		egress.Caller{Namespace: "default", Account: "default/web"})
	if err != nil {
		t.Fatal(err)
	}
	may.now = table
	p := newHop(t, setup{origin: exchange.Origin{Direction: record.Outbound, Destination: dest, Service: called}, worker: exchange.Config{Egress: may}})
	one := drive(t, p)
	one()
	one() // the record of the first is complete by now
	name := func(s string) string { return "AuthorizationPolicy/default/" + s }
	if d := p.log.last().Decision; d.Verdict != record.Allowed || d.Policy != name("yes") || d.Dry != record.Denied || d.DryPolicy != name("trial") || d.Audit != name("seen") {
		t.Errorf("%+v", d)
	}
	p.log.forget()
	noAllocation(t, 0, one)
}
