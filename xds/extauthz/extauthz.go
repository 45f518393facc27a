// Package extauthz asks external authorizers about requests: over gRPC (envoy.service.auth.v3), or by an HTTP request that looks
// like the one that is asked about. It decides nothing. A Client never blocks who asks, and has a bound of questions under way
// and of what it reads; it is safe for concurrent use, and every goroutine it makes ends with Close. What an authorizer says
// about fields that frame a message, or that only proxies may say, is left out. Start reading at Client.Ask.
package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tulle-mesh/tulle/internal/underway"
	"github.com/tulle-mesh/tulle/model"
)

// Client asks one service.
type Client struct {
	conn  grpc.ClientConnInterface
	web   http.RoundTripper
	asked *underway.Group
}

// most is how many questions may be under way.
const most = 1024

// NewClient makes one that asks over conn, and, for authorizers that are asked so, over HTTP by web.
func NewClient(conn grpc.ClientConnInterface, web http.RoundTripper) *Client {
	return &Client{conn: conn, web: web, asked: underway.New(most)}
}

// Ask asks q; then is called once, from another goroutine, within the authorizer's timeout, with an answer or an error. It
// answers false, and then is not called, if too much is under way.
func (c *Client) Ask(q *model.AuthorizerQuestion, then func(*model.AuthorizerAnswer, error)) bool {
	return c.asked.Go(func(ctx context.Context, _ func()) {
		ctx, cancel := context.WithTimeout(ctx, q.Authorizer.Timeout)
		defer cancel()
		if q.Authorizer.HTTP {
			then(c.overHTTP(ctx, q))
			return
		}
		r, err := authv3.NewAuthorizationClient(c.conn).Check(ctx, encode(q), grpc.MaxCallRecvMsgSize(maxAnswer))
		if err != nil {
			then(nil, err)
			return
		}
		then(decode(r, q.Authorizer))
	})
}

// Close ends what is under way.
func (c *Client) Close() { c.asked.Close() }

// Bounds of an answer.
const (
	maxAnswer = 1 << 20
	maxBody   = 64 << 10
	maxFields = 64
	maxField  = 16 << 10
)

// encode writes a question as Envoy does: the pseudo fields of HTTP/2 are among the fields.
func encode(q *model.AuthorizerQuestion) *authv3.CheckRequest {
	h := &authv3.AttributeContext_HttpRequest{Id: q.ID, Method: q.Method, Path: q.Path, Host: q.Host, Scheme: q.Scheme, Protocol: q.Protocol, Size: -1, Headers: map[string]string{}}
	for _, f := range q.Fields {
		if was, ok := h.Headers[f.Name]; ok {
			h.Headers[f.Name] = was + "," + f.Value
			continue
		}
		h.Headers[f.Name] = f.Value
	}
	h.Headers[":method"], h.Headers[":path"], h.Headers[":authority"], h.Headers[":scheme"] = q.Method, q.Path, q.Host, q.Scheme
	if q.Authorizer.Body > 0 {
		h.Body = strings.ToValidUTF8(string(q.Body), "\uFFFD")
		h.Headers["x-envoy-auth-partial-body"] = fmt.Sprint(q.Partial)
		if !q.Partial {
			h.Size = int64(len(q.Body))
		}
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: end(&q.Source), Destination: end(&q.Target),
		Request: &authv3.AttributeContext_Request{Time: timestamppb.New(q.At), Http: h},
	}}
}

func end(p *model.AuthorizerPeer) *authv3.AttributeContext_Peer {
	return &authv3.AttributeContext_Peer{Principal: p.Principal, Service: p.Service, Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
		SocketAddress: &corev3.SocketAddress{Address: p.Address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(p.Port)}}}}}
}

// errUnclear is an answer that says neither yes nor no.
var errUnclear = errors.New("the authorizer's answer has no status")

func decode(r *authv3.CheckResponse, by *model.Authorizer) (*model.AuthorizerAnswer, error) {
	if r.GetStatus() == nil || r.GetErrorResponse() != nil {
		return nil, errUnclear
	}
	out := &model.AuthorizerAnswer{Allowed: codes.Code(r.GetStatus().GetCode()) == codes.OK}
	if !out.Allowed {
		d := r.GetDeniedResponse()
		out.Status, out.Body = int(d.GetStatus().GetCode()), []byte(d.GetBody())
		out.Response = edits(d.GetHeaders(), by.ClientHeaders)
		return out, bounded(out)
	}
	ok := r.GetOkResponse()
	out.Edits, out.Response = edits(ok.GetHeaders(), by.UpstreamHeaders), edits(ok.GetResponseHeadersToAdd(), by.AllowHeaders)
	out.Remove = removable(ok.GetHeadersToRemove())
	for _, p := range ok.GetQueryParametersToSet() {
		if p.GetKey() != "" {
			out.SetQuery = append(out.SetQuery, model.Header{Name: p.GetKey(), Value: p.GetValue()})
		}
	}
	out.RemoveQuery = ok.GetQueryParametersToRemove()
	return out, bounded(out)
}

// edits reads changes of fields; names are those that are wanted, none: all.
func edits(list []*corev3.HeaderValueOption, names []string) (out []model.FieldEdit) {
	for _, o := range list {
		h := o.GetHeader()
		f := model.FieldEdit{Name: strings.ToLower(h.GetKey()), Value: h.GetValue(), How: action(o)}
		if f.Value == "" && len(h.GetRawValue()) > 0 {
			f.Value = string(h.GetRawValue())
		}
		if passes(f.Name, f.Value, names) {
			out = append(out, f)
		}
	}
	return out
}

// removable answers the fields that may be taken out of a request.
func removable(list []string) (out []string) {
	for _, name := range list {
		if name = strings.ToLower(strings.TrimSpace(name)); passes(name, "", nil) {
			out = append(out, name)
		}
	}
	return out
}

// action answers what becomes of fields that are there. Where an answer says neither append nor an append_action they are replaced,
// as the messages' documentation has it: appending would leave the client's own value there.
func action(o *corev3.HeaderValueOption) model.FieldAction {
	//lint:ignore SA1019 authorizers still say it so
	if a := o.GetAppend(); a != nil {
		if a.GetValue() {
			return model.FieldAppend
		}
		return model.FieldSet
	}
	switch o.GetAppendAction() {
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		return model.FieldDefault
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return model.FieldReplace
	}
	return model.FieldSet
}

// bounded is an error for an answer with too much in it.
func bounded(a *model.AuthorizerAnswer) error {
	if len(a.Remove)+len(a.Edits)+len(a.Response)+len(a.SetQuery)+len(a.RemoveQuery) > maxFields || len(a.Body) > maxBody {
		return fmt.Errorf("the authorizer's answer changes more than %d fields and parameters, or has a body of more than %d bytes", maxFields, maxBody)
	}
	for _, p := range a.SetQuery {
		if len(p.Name)+len(p.Value) > maxField {
			return fmt.Errorf("the authorizer's answer has a query parameter of more than %d bytes", maxField)
		}
	}
	if a.Status != 0 && (a.Status < 200 || a.Status > 599) {
		return fmt.Errorf("the authorizer's answer has status %d", a.Status)
	}
	return nil
}

// framing are fields that belong to a message or its connection, and that nobody else may change.
var framing = []string{"connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "x-request-id"}

// passes reports whether a field of an answer may be passed on: names are those that are wanted, none: all.
func passes(name, value string, names []string) bool {
	if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) || len(value) > maxField || strings.HasPrefix(name, "tulle-") || slices.Contains(framing, name) {
		return false
	}
	return len(names) == 0 || slices.Contains(names, name)
}

// canonical is how net/http spells a field's name.
func canonical(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }
