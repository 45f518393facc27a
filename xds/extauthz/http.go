package extauthz

import (
	"bytes"
	"context"
	"fmt"
	"io"
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
	names := by.UpstreamHeaders
	if !out.Allowed {
		names, out.Status = by.ClientHeaders, res.StatusCode
		if out.Body, err = io.ReadAll(io.LimitReader(res.Body, maxBody+1)); err != nil {
			return nil, err
		}
	}
	for name, values := range res.Header {
		name = strings.ToLower(name)
		for i, v := range values {
			if !passes(name, v, names) || out.Allowed && len(names) == 0 {
				continue
			}
			switch f := (model.Header{Name: name, Value: v}); {
			case !out.Allowed:
				out.Fields = append(out.Fields, f)
			case i == 0:
				out.Set = append(out.Set, f)
			default:
				out.Append = append(out.Append, f)
			}
		}
	}
	return out, bounded(out)
}
