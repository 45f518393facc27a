package downstream_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/exchange"
	"github.com/tulle-mesh/tulle/proxy/policy"
)

// external is a policy that asks an authorizer about everything below /ask.
func external() model.Policy {
	p := only(model.ActionExternal, "ext", model.PolicyRule{Name: "asked", To: []model.PolicyTarget{{Paths: []model.PolicyPath{{Match: model.StringMatch{Kind: model.StringPrefix, Value: "/ask"}}}}}})
	p.Authorizer = p.Name
	return p
}

// TestNobodyAsks: where an authorizer is wanted and nobody can ask it, nothing passes.
func TestNobodyAsks(t *testing.T) {
	var reached atomic.Int64
	p, _ := policed(t, counting(t, &reached), io.Discard, external())
	for path, want := range map[string]int{"/ask/1": 403, "/other": 200} {
		res, err := http.Get("http://" + p.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		d := p.log.last().Decision
		if res.StatusCode != want || want == 403 && (res.Header.Get("Tulle-Reason") != "authorizer_unavailable" || d.Verdict != record.Denied || !strings.HasSuffix(d.Policy, "/ext")) {
			t.Errorf("%s: %d %v %+v", path, res.StatusCode, res.Header, d)
		}
	}
	if reached.Load() != 1 {
		t.Errorf("%d requests reached the program", reached.Load())
	}
}

// authorizer answers what f does, from another goroutine.
func authorizer(f func(*model.AuthorizerQuestion) (*model.AuthorizerAnswer, error)) exchange.Consult {
	return func(q *model.AuthorizerQuestion, then func(*model.AuthorizerAnswer, error)) bool {
		go func() { then(f(q)) }()
		return true
	}
}

// consulted is a proxy in front of a program, with a policy that asks by.
func consulted(t testing.TB, program http.HandlerFunc, by model.Authorizer, ask exchange.Consult) *hop {
	t.Helper()
	in := policy.New(policy.Config{})
	by.Name = external().Name
	if err := in.Set(&model.Security{Policies: []model.Policy{external()}, Authorizers: []model.Authorizer{by}}); err != nil {
		t.Fatal(err)
	}
	o := inbound(addrOf(t, serve(t, program)))
	o.Policies, o.Caller = in, policy.NewCaller(account("web"), netip.MustParseAddr("10.0.0.1"), 80)
	return newHop(t, setup{origin: o, worker: exchange.Config{Consult: ask}})
}

// TestConsulted: what the authorizer says about the request is what the program gets, and what it says in a refusal is what the
// client gets; nothing of a refused request reaches the program.
func TestConsulted(t *testing.T) {
	var reached atomic.Int64
	program := func(w http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %v %q", body, r.Header.Get("X-User"), r.Header["X-More"], r.Header.Get("X-Gone"))
	}
	p := consulted(t, program, model.Authorizer{Body: 8, PartialBody: true}, authorizer(func(q *model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) {
		switch {
		case strings.HasPrefix(q.Path, "/ask/error"):
			return nil, errors.New("no answer")
		case string(q.Body) == "forbid":
			return &model.AuthorizerAnswer{Status: 401, Body: []byte("who"), Fields: []model.Header{{Name: "www-authenticate", Value: "Basic"}, {Name: "content-type", Value: "text/x"}}}, nil
		}
		return &model.AuthorizerAnswer{Allowed: true, Remove: []string{"x-gone"}, Set: []model.Header{{Name: "x-user", Value: fmt.Sprintf("%s/%v/%s", q.Body, q.Partial, q.Source.Principal)}},
			Append: []model.Header{{Name: "x-more", Value: "2"}}}, nil
	}))
	id := account("web").String()
	for _, c := range []struct {
		path, body, want string
		status           int
		reason           string
	}{
		{"/ask/1", "hello", "hello hello/false/" + id + ` [1 2] ""`, 200, ""},
		{"/ask/1", "", " /false/" + id + ` [1 2] ""`, 200, ""},
		{"/ask/1", "hello, world", "hello, world hello, w/true/" + id + ` [1 2] ""`, 200, ""},
		{"/ask/1", strings.Repeat("x", 200_000), strings.Repeat("x", 200_000) + " xxxxxxxx/true/" + id + ` [1 2] ""`, 200, ""},
		{"/ask/1", "forbid", "who", 401, "authz_denied"},
		{"/ask/error", "hello", "tulle: the external authorizer could not be asked (authorizer_unavailable)\n", 403, "authorizer_unavailable"},
		{"/other", "forbid", `forbid mallory [1] "1"`, 200, ""},
	} {
		before := reached.Load()
		req, err := http.NewRequest("POST", "http://"+p.addr+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"X-User": {"mallory"}, "X-More": {"1"}, "X-Gone": {"1"}}
		res, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != c.status || string(text) != c.want || res.Header.Get("Tulle-Reason") != c.reason || (reached.Load() != before) != (c.status == 200) {
			t.Errorf("%s %.20q: %d %.120q %v", c.path, c.body, res.StatusCode, text, res.Header)
		}
		if c.status == 401 && (res.Header.Get("WWW-Authenticate") != "Basic" || res.Header.Get("Content-Type") != "text/x" || res.Header.Get("X-Request-Id") == "") {
			t.Errorf("%v", res.Header)
		}
		if d := p.log.last().Decision; (d.Verdict == record.Denied) != (c.status != 200) {
			t.Errorf("%s %.20q: %+v", c.path, c.body, d)
		}
	}
}

// TestConsultedBounds: who fails open passes what nobody answers; a body that may not be cut is refused when it is too long; a
// gRPC caller gets a gRPC status; an answer that comes when the client has gone changes nothing.
func TestConsultedBounds(t *testing.T) {
	none := authorizer(func(*model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) { return nil, errors.New("no answer") })
	ok := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	post := func(p *hop, body, kind string) *http.Response {
		t.Helper()
		res, err := client(t).Post("http://"+p.addr+"/ask", kind, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res
	}
	if res := post(consulted(t, ok, model.Authorizer{FailOpen: true}, none), "a", "text/plain"); res.StatusCode != 200 {
		t.Errorf("fail open: %d", res.StatusCode)
	}
	if res := post(consulted(t, ok, model.Authorizer{Body: 4}, none), "hello", "text/plain"); res.StatusCode != 413 || res.Header.Get("Tulle-Reason") != "authz_denied" {
		t.Errorf("a body that is too long: %d %v", res.StatusCode, res.Header)
	}
	who := authorizer(func(*model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) {
		return &model.AuthorizerAnswer{Status: 401}, nil
	})
	if res := post(consulted(t, ok, model.Authorizer{}, who), "", "application/grpc"); res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "16" {
		t.Errorf("gRPC: %d %v", res.StatusCode, res.Header)
	}
	asked, answer := make(chan struct{}), make(chan struct{})
	p := consulted(t, ok, model.Authorizer{}, authorizer(func(*model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) {
		close(asked)
		<-answer
		return &model.AuthorizerAnswer{Allowed: true}, nil
	}))
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /ask HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	c.Close()
	for end := time.Now().Add(5 * time.Second); p.log.count() == 0 && time.Now().Before(end); { // poll
		time.Sleep(time.Millisecond) // poll
	}
	if p.log.count() != 1 {
		t.Error("the exchange of a client that has gone is not over")
	}
	close(answer)
	if res, err := client(t).Get("http://" + p.addr + "/other"); err != nil || res.StatusCode != 200 {
		t.Errorf("%v %v", res, err)
	}
}
