package downstream_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/policy"
)

func exactly(v ...string) (out []model.StringMatch) {
	for _, s := range v {
		out = append(out, model.StringMatch{Kind: model.StringExact, Value: s})
	}
	return out
}

func account(name string) spiffe.ID {
	return spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: name}
}

// rule is one rule for a caller, on a target.
func rule(from string, to ...model.PolicyTarget) model.PolicyRule {
	return model.PolicyRule{Name: "rules[0]", From: []model.PolicySource{{Accounts: exactly("default/" + from)}}, To: to}
}

func only(action model.Action, name string, rules ...model.PolicyRule) model.Policy {
	return model.Policy{Name: "AuthorizationPolicy/default/" + name, Action: action, Rules: rules}
}

// policed is a proxy in front of a program, whose caller is web, with policies in force.
func policed(t testing.TB, program netip.AddrPort, log io.Writer, policies ...model.Policy) (*hop, *policy.InForce) {
	t.Helper()
	in := policy.New(policy.Config{Log: slog.New(slog.NewTextHandler(log, nil)), Lines: 3})
	if err := in.Set(&model.Security{Policies: policies}); err != nil {
		t.Fatal(err)
	}
	o := inbound(program)
	o.Policies, o.Caller = in, policy.NewCaller(account("web"), netip.MustParseAddr("10.0.0.1"), 80)
	return newHop(t, setup{origin: o}), in
}

// counting is a program that counts what reaches it.
func counting(t *testing.T, n *atomic.Int64) netip.AddrPort {
	return addrOf(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
	}))
}

func TestPoliciesDecide(t *testing.T) {
	var reached atomic.Int64
	prefix := []model.PolicyPath{{Match: model.StringMatch{Kind: model.StringPrefix, Value: "/products/"}}}
	p, _ := policed(t, counting(t, &reached), io.Discard,
		only(model.ActionDeny, "no", model.PolicyRule{Name: "trace", When: []model.PolicyCondition{{Kind: model.ConditionQuery, Name: "debug"}}}),
		only(model.ActionAllow, "get", rule("web", model.PolicyTarget{Methods: exactly("GET", "POST"), Paths: prefix, Hosts: exactly("cart")})),
		only(model.ActionAllow, "grpc", rule("web", model.PolicyTarget{Procedures: exactly("shop.Cart/Add")})),
		only(model.ActionAllow, "cookie", model.PolicyRule{Name: "c", When: []model.PolicyCondition{
			{Kind: model.ConditionCookie, Name: "who", Values: exactly("ann")}, {Kind: model.ConditionHeader, Name: "x-team", Values: exactly("red")}}}),
	)
	for _, c := range []struct {
		method, target, host, fields string
		allowed                      bool
		by                           string
	}{
		{"GET", "/products/1", "cart", "", true, "get"},
		{"GET", "/products/1?x=/admin", "CART.:8080", "", true, "get"},
		{"POST", "/products/1", "cart", "", true, "get"},
		{"PUT", "/products/1", "cart", "", false, ""},
		{"GET", "/product", "cart", "", false, ""},
		{"GET", "/products/1", "other", "", false, ""},
		{"GET", "/products/1?a=1&debug", "cart", "", false, "no"},
		{"GET", "/products/1?a=1&d%65bug=1", "cart", "", false, "no"},
		{"POST", "/shop.Cart/Add", "cart", "Content-Type: application/grpc\r\n", true, "grpc"},
		{"POST", "/shop.Cart/Add", "cart", "", false, ""},
		{"GET", "/", "x", "X-Team: blue\r\nx-team: red\r\nCookie: a=b; who=\"ann\"\r\n", true, "cookie"},
		{"GET", "/", "x", "X-Team: red\r\nCookie: who=bob\r\n", false, ""},
	} {
		before := reached.Load()
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		body := ""
		if c.method == "POST" {
			body = "hello"
		}
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nx-request-id: id-7\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s", c.method, c.target, c.host, len(body), c.fields, body)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(res.Body)
		conn.Close()
		d := p.log.last().Decision
		if name := strings.TrimPrefix(d.Policy, "AuthorizationPolicy/default/"); d.Verdict == record.Allowed != c.allowed || name != c.by {
			t.Errorf("%s %s %s: %+v", c.method, c.host, c.target, d)
		}
		grpc := res.Header.Get("Grpc-Status") == "7"
		refused := res.StatusCode == 403 || grpc
		if refused == c.allowed || reached.Load() != before+map[bool]int64{true: 1}[c.allowed] {
			t.Errorf("%s %s %s: %d, reached the program %d times", c.method, c.host, c.target, res.StatusCode, reached.Load()-before)
		}
		if refused && (res.Header.Get("Tulle-Reason") != "authz_denied" || res.Header.Get("X-Request-Id") != "id-7" || bytes.Contains(said, []byte("Policy/"))) {
			t.Errorf("%s %s: %v %q", c.method, c.target, res.Header, said)
		}
	}
}

// TestDenialExplained: the log names the policy, or the nearest rule; it has a bound; who dry-runs is not refused.
func TestDenialExplained(t *testing.T) {
	var log syncBuffer
	var reached atomic.Int64
	dry := only(model.ActionDeny, "later", rule("web"))
	dry.DryRun = true
	audit := only(model.ActionAudit, "watch", rule("web"))
	p, _ := policed(t, counting(t, &reached), &log, dry, audit, only(model.ActionAllow, "get", rule("web", model.PolicyTarget{Methods: exactly("GET")})))
	if res, err := client(t).Get(p.url("/a")); err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	if d := p.log.last().Decision; d.Dry != record.Denied || d.DryPolicy != dry.Name || d.Audit != audit.Name || d.Verdict != record.Allowed {
		t.Errorf("%+v", d)
	}
	for range 40 {
		if res, _ := post(t, p, "x"); res.StatusCode != 403 {
			t.Fatal(res.Status)
		}
	}
	lines := strings.Count(log.String(), "authz_denied")
	if lines == 0 || lines > 20 || !strings.Contains(log.String(), "AuthorizationPolicy/default/get rules[0]: method POST instead of GET") {
		t.Errorf("%d lines:\n%s", lines, log.String())
	}
}

// TestUnknownPoliciesLetNobodyIn: what cannot be enforced does not replace what is.
func TestUnknownPoliciesLetNobodyIn(t *testing.T) {
	var reached atomic.Int64
	in := policy.New(policy.Config{})
	o := inbound(counting(t, &reached))
	o.Policies, o.Caller = in, policy.NewCaller(account("web"), netip.MustParseAddr("10.0.0.1"), 80)
	p := newHop(t, setup{origin: o})
	ask := func() int {
		res, err := client(t).Get(p.url("/"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := ask(); got != 403 || reached.Load() != 0 {
		t.Errorf("%d before anything is known", got)
	}
	if err := in.Set(&model.Security{}); err != nil || in.Rules() != nil {
		t.Errorf("nothing to enforce costs more than a nil check: %v", err)
	}
	if got := ask(); got != 200 {
		t.Error(got)
	}
	wrong := only(model.ActionAllow, "e", model.PolicyRule{Expression: "true"})
	if err := in.Set(&model.Security{Policies: []model.Policy{wrong}}); err == nil {
		t.Error("an expression that nobody can evaluate is in force")
	}
	if got := ask(); got != 200 {
		t.Error(got)
	}
}

// TestNoAllocationAuthz: a request with policies in force, all conditions of fields included, allocates nothing.
func TestNoAllocationAuthz(t *testing.T) {
	p, in := policed(t, fixed(t), io.Discard)
	var all []model.Policy
	for i := range 100 {
		all = append(all, only(model.ActionAllow, fmt.Sprint(i), rule(fmt.Sprint("svc", i), model.PolicyTarget{Methods: exactly("GET")})))
	}
	all = append(all, only(model.ActionDeny, "no", model.PolicyRule{When: []model.PolicyCondition{
		{Kind: model.ConditionQuery, Name: "color", Values: exactly("blue")}, {Kind: model.ConditionHeader, Name: "user-agent"}, {Kind: model.ConditionCookie, Name: "a"}}}),
		only(model.ActionAudit, "watch", rule("web")),
		only(model.ActionAllow, "get", rule("web", model.PolicyTarget{Methods: exactly("GET"), Hosts: exactly("cart"),
			Paths: []model.PolicyPath{{Template: true, Match: model.StringMatch{Value: "/products/{id}"}}}})))
	if err := in.Set(&model.Security{Policies: all}); err != nil {
		t.Fatal(err)
	}
	one := drive(t, p)
	one()
	if d := p.log.last().Decision; d.Policy != "AuthorizationPolicy/default/get" {
		t.Fatalf("%+v", d)
	}
	p.log.forget()
	noAllocation(t, 0, one)
}

// TestOpenStreamsRevoked: an upgraded stream and a response that has begun end when a policy comes that does not allow them,
// and another caller's do not.
func TestOpenStreamsRevoked(t *testing.T) {
	in := policy.New(policy.Config{})
	if err := in.Set(&model.Security{}); err != nil {
		t.Fatal(err)
	}
	l := newLoop(t)
	hops := map[string]*hop{}
	conns := map[string]net.Conn{}
	for _, who := range []string{"web", "batch"} {
		o := inbound(echoSocket(t))
		o.Policies, o.Caller = in, policy.NewCaller(account(who), netip.MustParseAddr("10.0.0.1"), 80)
		hops[who] = newHop(t, setup{loop: l, origin: o})
		conns[who] = upgraded(t, hops[who])
	}
	if err := in.Set(&model.Security{Policies: []model.Policy{only(model.ActionDeny, "no", rule("batch"))}}); err != nil {
		t.Fatal(err)
	}
	for _, h := range hops {
		h.do(func() { h.worker.Review(in) })
	}
	_ = conns["batch"].SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := conns["batch"].Read(make([]byte, 1)); n != 0 || err == nil || isTimeout(err) {
		t.Errorf("the stream of the caller that was revoked goes on: %d %v", n, err)
	}
	if r := hops["batch"].log.last(); r.Reason != "authz_denied" || r.Decision.Policy != "AuthorizationPolicy/default/no" {
		t.Errorf("%+v", r)
	}
	talk(t, conns["web"])
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

// upgraded opens a WebSocket through h.
func upgraded(t *testing.T, h *hop) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprint(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	talk(t, c)
	return c
}

// talk sends something through an upgraded stream and reads it back.
func talk(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("%q %v", b, err)
	}
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
