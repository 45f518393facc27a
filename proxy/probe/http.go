package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/health"
)

// Bounds of an answer in bytes.
const (
	maxHead = 64 << 10
	maxBody = 1 << 20 // what is longer is not read, and its connection not used again
)

const userAgent = "Tulle/HC"

// What proxies of the mesh tell each other: the version that the program is to be asked in, and that an answer is a proxy's.
const (
	fieldHTTP   = "Tulle-Http"
	fieldReason = "Tulle-Reason"
)

// two reports whether HTTP/2 is spoken.
func (p *Probe) two() bool { return p.cfg.Check.HTTP2 || p.cfg.Check.Kind == model.CheckGRPC }

func (p *Probe) transport() *http.Transport {
	t := &http.Transport{DisableCompression: true, DisableKeepAlives: !p.cfg.Check.ReuseConnection, MaxIdleConns: 1,
		MaxResponseHeaderBytes: maxHead, Protocols: &http.Protocols{}}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) }
	protocol := "http/1.1"
	switch {
	case p.cfg.Mesh != nil:
		t.Protocols.SetUnencryptedHTTP2(true)
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return p.cfg.Mesh(ctx, false) }
	case p.two() && p.cfg.TLS != nil:
		t.Protocols.SetHTTP2(true)
		protocol = "h2"
	case p.two():
		t.Protocols.SetUnencryptedHTTP2(true)
	default:
		t.Protocols.SetHTTP1(true)
	}
	t.DialContext = dial
	t.DialTLSContext = func(ctx context.Context, network, at string) (net.Conn, error) {
		c, err := p.dial(ctx)
		if err != nil {
			return nil, err
		}
		return p.secure(ctx, c, protocol)
	}
	return t
}

// request makes a request with the path as it is written in the configuration.
func (p *Probe) request(ctx context.Context, method, path string, body []byte) *http.Request {
	u := &url.URL{Scheme: "http", Host: p.at.String(), Opaque: path}
	if p.cfg.TLS != nil {
		u.Scheme = "https"
	}
	r := (&http.Request{Method: method, URL: u, Host: p.host, Header: http.Header{"User-Agent": {userAgent}}, ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	if p.cfg.Mesh != nil && !p.two() {
		r.Header.Set(fieldHTTP, "1")
	}
	if body != nil {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	return r
}

// exchange asks and reads the answer.
func (p *Probe) exchange(r *http.Request) (*http.Response, []byte, error) {
	resp, err := p.http.RoundTrip(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if p.two() && resp.ProtoMajor != 2 {
		return nil, nil, errors.New("the server does not speak HTTP/2")
	}
	if why := resp.Header.Get(fieldReason); p.cfg.Mesh != nil && why != "" {
		return nil, nil, fmt.Errorf("the proxy in front of it: %.40s", why)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp, body, err
}

func (p *Probe) askHTTP(ctx context.Context) (health.Result, error) {
	c := p.cfg.Check
	method := c.Method
	if method == "" {
		method = http.MethodGet
	}
	r := p.request(ctx, method, c.Path, nil)
	for _, h := range c.Headers {
		if strings.EqualFold(h.Name, "host") {
			r.Host = h.Value
			continue
		}
		r.Header[http.CanonicalHeaderKey(h.Name)] = append(r.Header[http.CanonicalHeaderKey(h.Name)], h.Value)
	}
	if own := r.Header["User-Agent"]; len(own) > 1 {
		r.Header["User-Agent"] = own[1:]
	}
	resp, _, err := p.exchange(r)
	if err != nil {
		return health.Unreachable, err
	}
	if !expected(c.Statuses, resp.StatusCode) {
		return health.Failed, fmt.Errorf("status %d", resp.StatusCode)
	}
	return health.Passed, nil
}

func expected(all []model.StatusRange, status int) bool {
	for _, r := range all {
		if status >= r.From && status < r.To {
			return true
		}
	}
	return len(all) == 0 && status == http.StatusOK
}

// askGRPC asks as https://github.com/grpc/grpc/blob/master/doc/health-checking.md says.
func (p *Probe) askGRPC(ctx context.Context) (health.Result, error) {
	r := p.request(ctx, http.MethodPost, health.GRPCPath, health.AppendQuestion(nil, p.cfg.Check.Service))
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	resp, body, err := p.exchange(r)
	if err != nil {
		return health.Unreachable, err
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc") {
		return health.Failed, fmt.Errorf("status %d, not gRPC", resp.StatusCode)
	}
	status := resp.Trailer.Get("Grpc-Status")
	if status == "" {
		status = resp.Header.Get("Grpc-Status")
	}
	if status != "0" {
		return health.Failed, fmt.Errorf("gRPC status %.10q", status)
	}
	if len(body) > health.MaxAnswer {
		return health.Failed, health.ErrAnswer
	}
	serving, err := health.ParseAnswer(body)
	switch {
	case err != nil:
		return health.Failed, err
	case !serving:
		return health.Failed, errors.New("not serving")
	}
	return health.Passed, nil
}
