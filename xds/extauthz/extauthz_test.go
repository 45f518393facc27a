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

func names(list []model.Header) string {
	var out []string
	for _, f := range list {
		out = append(out, f.Name+"="+f.Value)
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
	if err != nil || !a.Allowed || names(a.Set) != "x-user=bob" || names(a.Append) != "x-more=1" || strings.Join(a.Remove, " ") != "cookie" {
		t.Errorf("%+v %v", a, err)
	}
	h := got.GetAttributes().GetRequest().GetHttp()
	if h.GetPath() != "/a?b=c" || h.GetHeaders()["x-two"] != "1,2" || h.GetHeaders()[":method"] != "POST" || h.GetBody() != "hello" || h.GetId() != "id-7" ||
		got.GetAttributes().GetSource().GetPrincipal() != "spiffe://tulle.local/ns/default/sa/web" {
		t.Errorf("%v", got)
	}
	say = &authv3.CheckResponse{Status: &status.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: 401}, Body: "who are you", Headers: []*corev3.HeaderValueOption{option("WWW-Authenticate", "Basic", false), option("x-secret", "1", false)}}}}
	if a, err = ask(t, c, question(model.Authorizer{ClientHeaders: []string{"www-authenticate"}})); err != nil || a.Allowed || a.Status != 401 || string(a.Body) != "who are you" || names(a.Fields) != "www-authenticate=Basic" {
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
	by := model.Authorizer{HTTP: true, Path: "/check/", Body: 10, UpstreamHeaders: []string{"x-who"}, ClientHeaders: []string{"x-other"}}
	if a, err := ask(t, c, question(by)); err != nil || !a.Allowed || names(a.Set) != "x-who=ann" {
		t.Errorf("%+v %v", a, err)
	}
	q := question(by)
	q.Body = []byte("no")
	if a, err := ask(t, c, q); err != nil || a.Allowed || a.Status != 403 || string(a.Body) != "go away" || names(a.Fields) != "x-other=1" {
		t.Errorf("%+v %v", a, err)
	}
	q = question(by)
	q.Body = []byte("fail")
	if a, err := ask(t, c, q); err == nil {
		t.Errorf("%+v", a)
	}
}
