package downstream_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/token"
)

// warned is a log as a workload's proxy has it: what is below WARN is not written.
type warned struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *warned) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *warned) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *warned) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// ask sends one request and answers its status.
func (h *hop) ask(path, id string, fields ...string) int {
	h.t.Helper()
	req, err := http.NewRequest("GET", "http://"+h.addr+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("x-request-id", id)
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// TestAuthorizerIsTold: what an external authorizer has said is in the record, and what it has refused, and what was let through
// without an answer, in the log, with the policy, its rule and the request's id.
func TestAuthorizerIsTold(t *testing.T) {
	out := &warned{}
	auth := model.PortName{Service: model.ServiceName{Namespace: "default", Name: "auth"}, Port: 9000}
	build := func(open bool, ask exchange.Consult, more ...model.Policy) *hop {
		in := policy.New(policy.Config{Log: out.log(), Lines: 100})
		if err := in.Set(&model.Security{Policies: append(more, external()), Authorizers: []model.Authorizer{{Name: external().Name, Backend: auth, FailOpen: open}}}); err != nil {
			t.Fatal(err)
		}
		o := inbound(addrOf(t, serve(t, func(http.ResponseWriter, *http.Request) {})))
		o.Policies, o.Caller = in, policy.NewCaller(account("web"), netip.MustParseAddr("10.0.0.1"), 80)
		return newHop(t, setup{origin: o, worker: exchange.Config{Consult: ask}})
	}
	says := func(allowed bool, err error) exchange.Consult {
		return authorizer(func(*model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) {
			return &model.AuthorizerAnswer{Allowed: allowed}, err
		})
	}
	ext := external()
	readers := only(model.ActionAllow, "readers", model.PolicyRule{Name: "all"})
	for _, c := range []struct {
		name    string
		h       *hop
		status  int
		verdict record.Verdict
		word    record.Word
		policy  string
		line    string
	}{
		{"agreed", build(false, says(true, nil)), 200, record.Allowed, record.Agreed, ext.Name, ""},
		{"agreed beside one that allows", build(false, says(true, nil), readers), 200, record.Allowed, record.Agreed, readers.Name, ""},
		{"refused", build(false, says(false, nil)), 403, record.Denied, record.Objected, ext.Name, "authz_denied"},
		{"no answer", build(false, says(false, errors.New("away"))), 403, record.Denied, record.Unanswered, ext.Name, "authz_denied"},
		{"nobody can ask", build(false, nil), 403, record.Denied, record.Unanswered, ext.Name, "authz_denied"},
		{"no answer, open", build(true, says(false, errors.New("away"))), 200, record.Allowed, record.Unanswered, ext.Name, "authz_unanswered"},
		{"nobody can ask, open", build(true, nil), 200, record.Allowed, record.Unanswered, ext.Name, "authz_unanswered"},
	} {
		before := len(out.String())
		if got := c.h.ask("/ask/1", "id-9"); got != c.status {
			t.Errorf("%s: %d", c.name, got)
		}
		d := c.h.log.last().Decision
		if d.Verdict != c.verdict || d.Word != c.word || d.Policy != c.policy || d.Rule == "" || d.External != ext.Name || d.ExternalRule != "asked" || d.Authorizer != auth {
			t.Errorf("%s: %+v", c.name, d)
		}
		said := out.String()[before:]
		if c.line == "" && said != "" {
			t.Errorf("%s: the log says %s", c.name, said)
		}
		for _, part := range []string{"msg=" + c.line, "policy=" + ext.Name, "rule=asked", "request_id=id-9", "authorizer=auth.default:9000", "answer="} {
			if c.line != "" && !strings.Contains(said, part) {
				t.Errorf("%s: the log does not say %s: %s", c.name, part, said)
			}
		}
	}
}

// TestTokenIsTold: of a token that is refused, or missing, the record and the log say which policy wants what, whose the token says it
// is, and what is wrong with it; nothing else of it; and lines are bounded.
func TestTokenIsTold(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(claims string) string {
		sig, err := signer.Sign([]byte(claims))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := sig.CompactSerialize()
		return "Bearer " + text
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: pub}}})
	if err != nil {
		t.Fatal(err)
	}
	ring := token.NewRing(token.Config{})
	t.Cleanup(ring.Close)
	const by = "AuthenticationPolicy/default/cart jwt[0]"
	guards, keep, err := ring.Guards(&model.Security{Tokens: []model.TokenIssuer{{Name: by, Issuer: "me", Keys: string(keys), Algorithms: []string{"EdDSA"}, Required: true,
		From: []model.TokenPlace{{Header: "authorization", Prefix: "Bearer "}, {Query: "t"}}}}}, nil, []uint16{80})
	if err != nil {
		t.Fatal(err)
	}
	keep()
	out := &warned{}
	o := inbound(addrOf(t, serve(t, func(http.ResponseWriter, *http.Request) {})))
	o.Caller, o.Tokens = policy.NewCaller(account("web"), netip.MustParseAddr("10.0.0.1"), 80), &token.InForce{}
	o.Tokens.Set(guards[80])
	h := newHop(t, setup{origin: o, worker: exchange.Config{Log: out.log()}})
	for _, c := range []struct{ name, token, reason, issuer, cause string }{
		{"none", "", "token_missing", "", "a token is needed, and there is none"},
		{"no token at all", "Bearer hidden", "token_invalid", "", "is not a JSON Web Token"},
		{"expired", sign(`{"iss":"me","sub":"hidden","exp":1}`), "token_invalid", "me", "the token has expired"},
		{"of another", sign(`{"iss":"https://other.example","sub":"hidden","exp":99999999999}`), "token_invalid", "https://other.example", "is of another issuer"},
	} {
		before := len(out.String())
		fields := []string{"authorization", c.token}
		if c.token == "" {
			fields = nil
		}
		if got := h.ask("/a?t=", "id-5", fields...); got != 401 {
			t.Errorf("%s: %d", c.name, got)
		}
		r := h.log.last()
		if f := r.Decision.Refusal; r.Reason != c.reason || r.Decision.Verdict != record.Unasked || f.By != by || f.Issuer != c.issuer || !strings.Contains(f.Cause, c.cause) {
			t.Errorf("%s: %s %+v", c.name, r.Reason, f)
		}
		said := out.String()[before:]
		for _, part := range []string{"level=WARN", "msg=" + c.reason, `policy="` + by + `"`, "request_id=id-5", "path=/a ", "caller=" + account("web").String(), c.issuer, c.cause} {
			if !strings.Contains(said, part) {
				t.Errorf("%s: the log does not say %s: %s", c.name, part, said)
			}
		}
		if strings.Contains(said, "hidden") {
			t.Errorf("%s: the log says what is in it: %s", c.name, said)
		}
	}
	before := strings.Count(out.String(), "\n")
	for range 300 {
		h.ask("/a", "id", "authorization", "Bearer x")
	}
	if n := strings.Count(out.String(), "\n") - before; n > 150 { // one a second, on a machine that is however slow
		t.Errorf("%d lines of 300 tokens", n)
	}
}
