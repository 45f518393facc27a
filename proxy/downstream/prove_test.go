package downstream_test

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/token"
)

// TestTokensDecide: an issuer that answers late, requests with and without its tokens, and a policy about a claim of them.
func TestTokensDecide(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	began, answer := make(chan struct{}), make(chan struct{})
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-answer
		text, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public()}}})
		_, _ = w.Write(text)
	}))
	t.Cleanup(issuer.Close)
	sign := func(claims string) string {
		sig, err := signer.Sign([]byte(strings.TrimSuffix(claims, "}") + `,"exp":99999999999}`))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := sig.CompactSerialize()
		return text
	}
	var reached atomic.Int64
	var seen atomic.Value
	program := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		seen.Store(fmt.Sprint(r.URL, r.Header["X-User"], r.Header["X_user"], r.Header["Authorization"]))
		_, _ = io.Copy(io.Discard, r.Body)
	})
	security := &model.Security{
		Policies: []model.Policy{only(model.ActionAllow, "staff", model.PolicyRule{Name: "staff",
			From: []model.PolicySource{{TokenPrincipals: exactly("me/alice", "me/bob")}},
			When: []model.PolicyCondition{{Kind: model.ConditionClaim, Name: "realm.roles", Values: exactly("staff")}}})},
		Tokens: []model.TokenIssuer{{Issuer: "me", KeysURL: issuer.URL, Algorithms: []string{"EdDSA"}, From: []model.TokenPlace{{Header: "authorization", Prefix: "Bearer "}, {Query: "t"}},
			ClaimHeaders: []model.ClaimHeader{{Claim: "sub", Header: "x-user"}}, RequiredPaths: []model.PolicyPath{{Match: model.StringMatch{Kind: model.StringPrefix, Value: "/in/"}}}}},
	}
	ring := token.NewRing(token.Config{})
	t.Cleanup(ring.Close)
	guards, keep, err := ring.Guards(security, nil, []uint16{80})
	if err != nil {
		t.Fatal(err)
	}
	keep()
	in := policy.New(policy.Config{})
	if err := in.Set(security); err != nil {
		t.Fatal(err)
	}
	o := inbound(addrOf(t, program))
	o.Policies, o.Caller, o.Tokens = in, policy.NewCaller(account("web"), addrOf(t, program).Addr(), 80), &token.InForce{}
	o.Tokens.Set(guards[80])
	p := newHop(t, setup{origin: o})
	staff := sign(`{"iss":"me","sub":"alice","realm":{"roles":["x","staff"]}}`)
	do := func(target, fields string) *http.Response {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: cart\r\nContent-Length: 5\r\nConnection: close\r\n%s\r\nhello", target, fields)
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(res.Body)
		return res
	}
	// The first request waits for the keys, and is served when they have come.
	<-began
	first := make(chan *http.Response)
	go func() { first <- do("/in/first", "Authorization: Bearer "+staff+"\r\n") }()
	close(answer)
	if res := <-first; res.StatusCode != 200 {
		t.Fatalf("a request that waits for keys: %d %v", res.StatusCode, res.Header)
	}
	for _, c := range []struct {
		target, fields string
		status         int
		reason, seen   string
	}{
		{"/in/x", "Authorization: Bearer " + staff + "\r\nX-User: root\r\nx_user: root\r\n", 200, "", "/in/x [alice] [] []"},
		{"/in/x?a=1&t=" + staff, "", 200, "", "/in/x?a=1 [alice] [] []"},
		{"/in/x", "", 401, "token_missing", ""},
		{"/in/x", "Content-Type: application/grpc\r\n", 200, "token_missing", ""},
		{"/", "", 403, "authz_denied", ""},
		{"/in/x", "Authorization: Bearer " + staff + "x\r\n", 401, "token_invalid", ""},
		{"/", "Authorization: Bearer x.y.z\r\n", 401, "token_invalid", ""},
		{"/in/x", "Authorization: Bearer " + sign(`{"iss":"me","sub":"alice","realm":{"roles":["x"]}}`) + "\r\n", 403, "authz_denied", ""},
		{"/in/x", "Authorization: Bearer " + sign(`{"iss":"me","sub":"eve","realm":{"roles":["staff"]}}`) + "\r\n", 403, "authz_denied", ""},
		{"/in/x", "Authorization: Bearer " + sign(`{"iss":"me","sub":"bob","realm":{"roles":"staff"}}`) + "\r\n", 200, "", "/in/x [bob] [] []"},
	} {
		before := reached.Load()
		res := do(c.target, c.fields)
		if res.StatusCode != c.status || res.Header.Get("Tulle-Reason") != c.reason {
			t.Errorf("%s %.40q: %d %v", c.target, c.fields, res.StatusCode, res.Header)
		}
		if (reached.Load() > before) != (c.reason == "") {
			t.Errorf("%s %.40q reached the program %d times", c.target, c.fields, reached.Load()-before)
		}
		if c.reason == "" && seen.Load() != c.seen {
			t.Errorf("%s %.40q: the program sees %s, expected %s", c.target, c.fields, seen.Load(), c.seen)
		}
		challenge := res.Header.Get("Www-Authenticate")
		if strings.HasPrefix(challenge, "Bearer ") != (c.status == 401) || strings.Contains(challenge, "invalid_token") != (c.status == 401 && c.reason == "token_invalid") {
			t.Errorf("%s %.40q: challenge %q", c.target, c.fields, challenge)
		}
		if strings.Contains(c.fields, "grpc") && res.Header.Get("Grpc-Status") != "16" {
			t.Errorf("gRPC: %v", res.Header)
		}
	}
	if l := string(p.log.last().Path); strings.Contains(l, staff) {
		t.Error("a token is in the record")
	}
	for _, c := range []struct{ target, want string }{
		{"/in/x?t=" + staff + "x&a=b", "/in/x?t=redacted&a=b"}, {"/in/x?t=secret&a=b", "/in/x?t=redacted&a=b"}, {"/in/x?other=" + staff, "/in/x?other=redacted"},
	} {
		if res := do(c.target, ""); res.StatusCode != 401 || string(p.log.last().Path) != c.want {
			t.Errorf("%.20s: %d, the record has %s", c.target, res.StatusCode, p.log.last().Path)
		}
	}
}
