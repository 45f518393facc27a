package downstream_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
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
			return &model.AuthorizerAnswer{Status: 401, Body: []byte("who"), Response: []model.FieldEdit{{Name: "www-authenticate", Value: "Basic"}, {Name: "content-type", Value: "text/x"}}}, nil
		}
		return &model.AuthorizerAnswer{Allowed: true, Remove: []string{"x-gone"}, Edits: []model.FieldEdit{{Name: "x-user", Value: fmt.Sprintf("%s/%v/%s", q.Body, q.Partial, q.Source.Principal)},
			{Name: "x-more", Value: "2", How: model.FieldAppend}}}, nil
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

// TestConsultedChanges: every change that an answer can make is made, in Envoy's order; fields by which programs know who asks are not
// the authorizer's to say.
func TestConsultedChanges(t *testing.T) {
	var mu sync.Mutex
	var got string
	program := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = r.RequestURI
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			if name != "User-Agent" && name != "Accept-Encoding" && name != "X-Request-Id" {
				got += fmt.Sprintf("|%s=%s", strings.ToLower(name), strings.Join(r.Header[name], ","))
			}
		}
		w.Header().Set("x-there", "program")
		w.Header().Set("set-cookie", "own=1")
		io.WriteString(w, "hello")
	}
	var answer *model.AuthorizerAnswer
	p := consulted(t, program, model.Authorizer{}, authorizer(func(*model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) { return answer, nil }))
	field := func(how model.FieldAction, name, value string) model.FieldEdit {
		return model.FieldEdit{Name: name, Value: value, How: how}
	}
	set, add, fill, swap := model.FieldSet, model.FieldAppend, model.FieldDefault, model.FieldReplace
	for name, c := range map[string]struct {
		answer   model.AuthorizerAnswer
		want     string
		response map[string]string // fields, their values with commas between
	}{
		"nothing": {model.AuthorizerAnswer{}, "/ask?a=1&b=2|x-one=1", map[string]string{"X-There": "program", "Set-Cookie": "own=1"}},
		"fields that are there": {model.AuthorizerAnswer{Edits: []model.FieldEdit{field(set, "x-one", "2"), field(add, "x-one", "3"), field(fill, "x-one", "4"), field(swap, "x-new", "5")}},
			"/ask?a=1&b=2|x-one=2,3", nil},
		"fields that are not": {model.AuthorizerAnswer{Edits: []model.FieldEdit{field(set, "x-a", "1"), field(add, "x-b", "2"), field(fill, "x-c", "3"), field(fill, "x-c", "4"), field(swap, "x-one", "5")}},
			"/ask?a=1&b=2|x-a=1|x-b=2|x-c=3|x-one=5", nil},
		"what is removed is gone": {model.AuthorizerAnswer{Edits: []model.FieldEdit{field(set, "x-one", "2"), field(set, "x-two", "2")}, Remove: []string{"x-one", "x-none"}}, "/ask?a=1&b=2|x-two=2", nil},
		"the query": {model.AuthorizerAnswer{SetQuery: []model.Header{{Name: "a", Value: "x&y=z #%41"}, {Name: "c", Value: "ü"}, {Name: "d", Value: "1"}}, RemoveQuery: []string{"b", "d"}},
			"/ask?a=x%26y%3Dz%20%23%41&c=%C3%BC|x-one=1", nil},
		"no query": {model.AuthorizerAnswer{RemoveQuery: []string{"a", "b"}}, "/ask|x-one=1", nil},
		"who asks": {model.AuthorizerAnswer{Edits: []model.FieldEdit{field(set, "x-forwarded-client-cert", "URI=spiffe://x"), field(add, "x_forwarded_client_cert", "x"), field(set, "tulle-class", "critical"),
			field(set, "tulle_http", "2"), field(set, "x-envoy-internal", "true"), field(set, "x-forwarded-for", "10.0.0.1"), field(fill, "x.forwarded.for", "10.0.0.1"), field(set, "x-forwarded-proto", "https")}}, "/ask?a=1&b=2|x-one=1", nil},
		"the response": {model.AuthorizerAnswer{Response: []model.FieldEdit{field(set, "x-there", "authorizer"), field(add, "set-cookie", "a=1"), field(add, "set-cookie", "b=2"), field(fill, "x-there", "no"), field(swap, "x-none", "no"), field(fill, "x-fill", "yes")}},
			"/ask?a=1&b=2|x-one=1", map[string]string{"X-There": "authorizer", "Set-Cookie": "own=1,a=1,b=2", "X-None": "", "X-Fill": "yes"}},
		"cookies that take the place of the program's": {model.AuthorizerAnswer{Response: []model.FieldEdit{field(set, "set-cookie", "a=1"), field(set, "set-cookie", "b=2")}}, "/ask?a=1&b=2|x-one=1", map[string]string{"Set-Cookie": "a=1,b=2"}},
	} {
		answer = &c.answer
		answer.Allowed = true
		req, err := http.NewRequest("GET", "http://"+p.addr+"/ask?a=1&b=2", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-One", "1")
		res, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		mu.Lock()
		if got != c.want || res.StatusCode != 200 {
			t.Errorf("%s: %d, the program got\n%s, want\n%s", name, res.StatusCode, got, c.want)
		}
		mu.Unlock()
		for field, want := range c.response {
			if v := strings.Join(res.Header[field], ","); v != want {
				t.Errorf("%s: %s: %q, want %q", name, field, v, want)
			}
		}
	}
	answer = &model.AuthorizerAnswer{Status: 302, Response: []model.FieldEdit{field(set, "location", "/login"), field(set, "set-cookie", "a=1"), field(set, "set-cookie", "b=2")}}
	no := client(t)
	no.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := no.Get("http://" + p.addr + "/ask")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 302 || res.Header.Get("Location") != "/login" || len(res.Header["Set-Cookie"]) != 2 {
		t.Errorf("a refusal: %d %v", res.StatusCode, res.Header)
	}
}
