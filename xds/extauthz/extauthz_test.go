package extauthz_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/extauthz"
)

// server answers what its function does.
type server struct {
	authv3.UnimplementedAuthorizationServer
	f func(*authv3.CheckRequest) (*authv3.CheckResponse, error)
}

func (s server) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.f(r)
}

func client(t *testing.T, f func(*authv3.CheckRequest) (*authv3.CheckResponse, error), web http.RoundTripper) *extauthz.Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	authv3.RegisterAuthorizationServer(g, server{f: f})
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := extauthz.NewClient(conn, web)
	t.Cleanup(c.Close)
	return c
}

func ask(t *testing.T, c *extauthz.Client, q *model.AuthorizerQuestion) (a *model.AuthorizerAnswer, err error) {
	t.Helper()
	done := make(chan struct{})
	if !c.Ask(q, func(x *model.AuthorizerAnswer, e error) { a, err = x, e; close(done) }) {
		t.Fatal("not asked")
	}
	<-done
	return a, err
}

func question(by model.Authorizer) *model.AuthorizerQuestion {
	by.Timeout = 5 * time.Second
	return &model.AuthorizerQuestion{Authorizer: &by, ID: "id-7", Method: "POST", Path: "/a?b=c", Host: "cart", Scheme: "http", Protocol: "HTTP/1.1",
		Fields: []model.Header{{Name: "x-user", Value: "ann"}, {Name: "cookie", Value: "a=b"}, {Name: "x-two", Value: "1"}, {Name: "x-two", Value: "2"}},
		Body:   []byte("hello"), Source: model.AuthorizerPeer{Principal: "spiffe://tulle.local/ns/default/sa/web", Service: "web.default", Address: "10.0.0.1", Port: 7}, At: time.Unix(1, 0)}
}

func option(name, value string, add bool) *corev3.HeaderValueOption {
	o := &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
	if add {
		//lint:ignore SA1019 authorizers still say it so
		o.Append = wrapperspb.Bool(true)
	}
	return o
}

func names(list []model.FieldEdit) string {
	var out []string
	for _, f := range list {
		out = append(out, f.Name+[]string{"=", "+", "?", "!"}[f.How]+f.Value)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestGRPC(t *testing.T) {
	var got *authv3.CheckRequest
	var say *authv3.CheckResponse
	c := client(t, func(r *authv3.CheckRequest) (*authv3.CheckResponse, error) { got = r; return say, nil }, nil)
	say = &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers:         []*corev3.HeaderValueOption{option("X-User", "bob", false), option("x-more", "1", true), option("Content-Length", "0", false), option("tulle-class", "critical", false), option("x-bad", "a\r\nb", false), option(":path", "/admin", false)},
		HeadersToRemove: []string{"Cookie", "host", "tulle-http"}}}}
	a, err := ask(t, c, question(model.Authorizer{Body: 100}))
	if err != nil || !a.Allowed || names(a.Edits) != "x-more+1 x-user=bob" || strings.Join(a.Remove, " ") != "cookie" {
		t.Errorf("%+v %v", a, err)
	}
	h := got.GetAttributes().GetRequest().GetHttp()
	if h.GetPath() != "/a?b=c" || h.GetHeaders()["x-two"] != "1,2" || h.GetHeaders()[":method"] != "POST" || h.GetBody() != "hello" || h.GetId() != "id-7" ||
		got.GetAttributes().GetSource().GetPrincipal() != "spiffe://tulle.local/ns/default/sa/web" {
		t.Errorf("%v", got)
	}
	say = &authv3.CheckResponse{Status: &status.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: 401}, Body: "who are you", Headers: []*corev3.HeaderValueOption{option("WWW-Authenticate", "Basic", false), option("x-secret", "1", false)}}}}
	if a, err = ask(t, c, question(model.Authorizer{ClientHeaders: []string{"www-authenticate"}})); err != nil || a.Allowed || a.Status != 401 || string(a.Body) != "who are you" || names(a.Response) != "www-authenticate=Basic" {
		t.Errorf("%+v %v", a, err)
	}
	if got.GetAttributes().GetRequest().GetHttp().GetBody() != "" {
		t.Error("a body was sent that nobody wanted")
	}
	for name, r := range map[string]*authv3.CheckResponse{"no status": {}, "status 99": {Status: &status.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 99}}}}} {
		if say = r; true {
			if a, err := ask(t, c, question(model.Authorizer{})); err == nil {
				t.Errorf("%s: %+v", name, a)
			}
		}
	}
}

// TestChanges: append, append_action and their defaults, response fields, the query; fields may be chosen, removals are not chosen from.
func TestChanges(t *testing.T) {
	did := func(how corev3.HeaderValueOption_HeaderAppendAction, name, value string) *corev3.HeaderValueOption {
		o := option(name, value, false)
		o.AppendAction = how
		return o
	}
	all := []*corev3.HeaderValueOption{option("a", "1", false), option("b", "2", true), did(corev3.HeaderValueOption_ADD_IF_ABSENT, "c", "3"),
		did(corev3.HeaderValueOption_OVERWRITE_IF_EXISTS, "d", "4"), did(corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, "e", "5"), did(corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD, "f", "6"),
		{Header: &corev3.HeaderValue{Key: "raw", RawValue: []byte("7")}}, {Header: &corev3.HeaderValue{Key: "empty"}}, option("content-length", "1", false), option("tulle-x", "1", false)}
	c := client(t, func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: all, ResponseHeadersToAdd: all, HeadersToRemove: []string{"Authorization", ":path", "Host", "connection"},
			QueryParametersToSet: []*corev3.QueryParameter{{Key: "q", Value: "1"}, {Value: "nameless"}}, QueryParametersToRemove: []string{"r"}}}}, nil
	}, nil)
	const every = "a=1 b+2 c?3 d!4 e=5 empty= f=6 raw=7"
	a, err := ask(t, c, question(model.Authorizer{}))
	if err != nil || names(a.Edits) != every || names(a.Response) != every || strings.Join(a.Remove, " ") != "authorization" || len(a.SetQuery) != 1 || a.SetQuery[0] != (model.Header{Name: "q", Value: "1"}) || !slices.Equal(a.RemoveQuery, []string{"r"}) {
		t.Errorf("%+v %v", a, err)
	}
	a, err = ask(t, c, question(model.Authorizer{UpstreamHeaders: []string{"a"}, AllowHeaders: []string{"b"}}))
	if err != nil || names(a.Edits) != "a=1" || names(a.Response) != "b+2" || len(a.Remove) != 1 {
		t.Errorf("chosen: %+v %v", a, err)
	}
}

// TestErrors: an answer that is an error is none, whatever its status; one with too much in it neither.
func TestErrors(t *testing.T) {
	var say *authv3.CheckResponse
	c := client(t, func(*authv3.CheckRequest) (*authv3.CheckResponse, error) { return say, nil }, nil)
	broken := &authv3.CheckResponse_ErrorResponse{ErrorResponse: &authv3.DeniedHttpResponse{Body: "broken"}}
	many := &authv3.OkHttpResponse{}
	for range 100 {
		many.QueryParametersToRemove = append(many.QueryParametersToRemove, "x")
	}
	for name, r := range map[string]*authv3.CheckResponse{"error": {Status: &status.Status{Code: 13}, HttpResponse: broken}, "error, and allowed": {Status: &status.Status{}, HttpResponse: broken},
		"too many": {Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: many}},
		"too long": {Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{QueryParametersToSet: []*corev3.QueryParameter{{Key: "a", Value: strings.Repeat("x", 20_000)}}}}}} {
		say = r
		if a, err := ask(t, c, question(model.Authorizer{})); err == nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// TestSilence: who does not answer in time is an error, and Close ends what is under way.
func TestSilence(t *testing.T) {
	stop := make(chan struct{})
	c := client(t, func(*authv3.CheckRequest) (*authv3.CheckResponse, error) { <-stop; return nil, io.EOF }, nil)
	defer close(stop)
	q := question(model.Authorizer{})
	q.Authorizer.Timeout = 20 * time.Millisecond
	if a, err := ask(t, c, q); err == nil {
		t.Errorf("%+v", a)
	}
	ended := make(chan error, 1)
	if !c.Ask(question(model.Authorizer{}), func(_ *model.AuthorizerAnswer, err error) { ended <- err }) {
		t.Fatal("not asked")
	}
	c.Close()
	if err := <-ended; err == nil {
		t.Error("answered")
	}
	if c.Ask(question(model.Authorizer{}), nil) {
		t.Error("asked after Close")
	}
}

// to sends every request to one server.
type to struct{ host string }

func (t to) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL = &url.URL{Scheme: "http", Host: t.host, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	return http.DefaultTransport.RoundTrip(r)
}

func TestHTTP(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Who", r.Header.Get("X-User"))
		w.Header().Set("X-Other", "1")
		w.Header()["X-Many"] = []string{"1", "2"}
		w.Header().Set("X-Envoy-Auth-Headers-To-Remove", "Authorization, x-old,Host")
		w.Header().Set("WWW-Authenticate", "Basic")
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path != "/check/a" || r.URL.RawQuery != "b=c" || r.Method != "POST" || r.Host != "cart" || r.Header.Get("Cookie") != "a=b":
			w.WriteHeader(http.StatusTeapot)
		case string(body) == "fail":
			w.WriteHeader(http.StatusBadGateway)
		case string(body) == "no":
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "go away")
		}
	}))
	defer s.Close()
	c := client(t, nil, to{strings.TrimPrefix(s.URL, "http://")})
	by := model.Authorizer{HTTP: true, Path: "/check/", Body: 10, UpstreamHeaders: []string{"x-who"}, AppendHeaders: []string{"x-many"}, ClientHeaders: []string{"x-other"}, AllowHeaders: []string{"x-many", "x-who"}}
	if a, err := ask(t, c, question(by)); err != nil || !a.Allowed || names(a.Edits) != "x-many+1 x-many+2 x-who=ann" || names(a.Response) != "x-many+2 x-many=1 x-who=ann" || strings.Join(a.Remove, " ") != "authorization x-old" {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := ask(t, c, question(model.Authorizer{HTTP: true, Path: "/check/", Body: 10})); err != nil || len(a.Edits)+len(a.Response) > 0 {
		t.Errorf("nothing was wanted: %+v %v", a, err)
	}
	q := question(by)
	q.Body = []byte("no")
	if a, err := ask(t, c, q); err != nil || a.Allowed || a.Status != 403 || string(a.Body) != "go away" || names(a.Response) != "www-authenticate=Basic x-other=1" {
		t.Errorf("%+v %v", a, err)
	}
	q = question(by)
	q.Body = []byte("fail")
	if a, err := ask(t, c, q); err == nil {
		t.Errorf("%+v", a)
	}
}
