package extauthz

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// overHTTP asks by a request with the method and path of the one that is asked about, and the fields that are named (Envoy's HTTP
// authorizer): 200 allows, 5xx is no answer, all else refuses and is what the client gets.
func (c *Client) overHTTP(ctx context.Context, q *model.AuthorizerQuestion) (*model.AuthorizerAnswer, error) {
	by := q.Authorizer
	u, err := url.ParseRequestURI(strings.TrimSuffix(by.Path, "/") + q.Path)
	if err != nil {
		return nil, fmt.Errorf("the path cannot be asked about: %w", err)
	}
	u.Scheme, u.Host = "http", by.Backend.String()
	req, err := http.NewRequestWithContext(ctx, q.Method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Host = q.Host
	if by.Body > 0 {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(q.Body)), int64(len(q.Body))
		req.Header.Set("X-Envoy-Auth-Partial-Body", fmt.Sprint(q.Partial))
	}
	for _, f := range q.Fields {
		if !slices.Contains(framing, f.Name) {
			req.Header[canonical(f.Name)] = append(req.Header[canonical(f.Name)], f.Value)
		}
	}
	req.Header.Set("X-Request-Id", q.ID)
	if q.Source.Address != "" {
		req.Header.Set("X-Forwarded-For", q.Source.Address)
	}
	req.Header.Set("Tulle-Http", "1") // between proxies: what the authorizer gets is HTTP/1.1
	res, err := c.web.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode >= 500 || res.Header.Get("Tulle-Reason") != "" {
		return nil, fmt.Errorf("the authorizer answers %d %s", res.StatusCode, res.Header.Get("Tulle-Reason"))
	}
	out := &model.AuthorizerAnswer{Allowed: res.StatusCode == http.StatusOK}
	if !out.Allowed {
		out.Status = res.StatusCode
		if out.Body, err = io.ReadAll(io.LimitReader(res.Body, maxBody+1)); err != nil {
			return nil, err
		}
		names := by.ClientHeaders
		if len(names) > 0 { // without these a client cannot do what it is told
			names = append([]string{"location", "www-authenticate"}, names...)
		}
		out.Response = taken(res.Header, names, model.FieldSet)
		return out, bounded(out)
	}
	if len(by.UpstreamHeaders) > 0 {
		out.Edits = taken(res.Header, by.UpstreamHeaders, model.FieldSet)
	}
	if len(by.AppendHeaders) > 0 {
		out.Edits = append(out.Edits, taken(res.Header, by.AppendHeaders, model.FieldAppend)...)
	}
	if len(by.AllowHeaders) > 0 {
		out.Response = taken(res.Header, by.AllowHeaders, model.FieldSet)
	}
	for _, list := range res.Header.Values(headersToRemove) {
		out.Remove = append(out.Remove, removable(strings.Split(list, ","))...)
	}
	return out, bounded(out)
}

// headersToRemove is the field of an answer that names those of the request which the program does not get, with commas between.
const headersToRemove = "X-Envoy-Auth-Headers-To-Remove"

// taken answers the fields of an answer that have one of the names, none: any. Of several with one name the first is as how says,
// and the others are beside it.
func taken(h http.Header, names []string, how model.FieldAction) (out []model.FieldEdit) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		lower, first := strings.ToLower(name), how
		for _, v := range h[name] {
			if name != headersToRemove && passes(lower, v, names) {
				out = append(out, model.FieldEdit{Name: lower, Value: v, How: first})
				first = model.FieldAppend
			}
		}
	}
	return out
}
