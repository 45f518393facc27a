// Package web is how issuers are asked over HTTPS: with bounds on time and size, certificates verified against a file that may
// change, no redirects and no proxies, and errors that say what to do and never what was sent. Safe for concurrent use. Start reading
// at Client.Do.
package web

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/control/ca/issuer"
)

// Bounds of one question.
const (
	wait     = 5 * time.Second
	maxReply = 256 << 10 // bytes
	maxSaid  = 300       // bytes of what a refusal says
)

// Client asks one server.
type Client struct {
	Base   string // https://host:port; http only to the loopback
	CAFile string // PEM; "": the machine's roots
	http   *http.Client
}

// New makes a client. It refuses what would send secrets in the clear.
func New(base, caFile string) (*Client, error) {
	base = strings.TrimRight(base, "/")
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not the address of an issuer: write https://host:port", redact(base))
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())) {
		return nil, fmt.Errorf("%s: an issuer is asked over https (http only on this machine's loopback)", base)
	}
	c := &Client{Base: base, CAFile: caFile}
	if u.Scheme == "https" && caFile != "" {
		if _, err := c.pool(); err != nil {
			return nil, err
		}
	}
	c.http = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialTLSContext: c.dial, DialContext: (&net.Dialer{}).DialContext, MaxIdleConnsPerHost: 8, MaxConnsPerHost: 32,
			IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: wait,
		},
	}
	return c, nil
}

// redact keeps a password that somebody has written into an address out of messages.
func redact(s string) string {
	if u, err := url.Parse(s); err == nil {
		return u.Redacted()
	}
	return "(not an address)"
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// pool reads the file again for every connection: it may have changed.
func (c *Client) pool() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate (PEM) is in it", c.CAFile)
	}
	return pool, nil
}

func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	pool, err := c.pool()
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}}).DialContext(ctx, network, address)
}

// Question is one request.
type Question struct {
	Issuer, What string // for the error
	Method, Path string
	Header       http.Header // may hold secrets; it is never told
	Body         []byte      // JSON; nil: none
	// Say reads a refusal: what it says, and what to do; nil, "": the status says it all.
	Say func(status int, body []byte) (said, next string)
}

// Do asks, and answers the body of a 2xx; everything else is an *issuer.Error.
func (c *Client) Do(ctx context.Context, q Question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	fail := func(next string, again bool, err error) ([]byte, error) {
		return nil, &issuer.Error{Issuer: q.Issuer, What: q.What, Err: err, Next: next, Again: again}
	}
	req, err := http.NewRequestWithContext(ctx, q.Method, c.Base+q.Path, bytes.NewReader(q.Body))
	if err != nil {
		return fail("", false, errors.New("the request cannot be written"))
	}
	for name, values := range q.Header {
		req.Header[name] = values
	}
	if q.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fail(c.unreached(err))
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	switch {
	case err != nil:
		return fail("", true, fmt.Errorf("its answer breaks off: %w", err))
	case len(body) > maxReply:
		return fail("is this the issuer's address?", false, fmt.Errorf("its answer has more than %d bytes", maxReply))
	case res.StatusCode/100 == 2:
		return body, nil
	case res.StatusCode/100 == 3:
		return fail("give the address that it redirects to", false, fmt.Errorf("it redirects (%d)", res.StatusCode))
	}
	said, next := http.StatusText(res.StatusCode), ""
	if q.Say != nil {
		if s, n := q.Say(res.StatusCode, body); s != "" {
			said, next = s, n
		}
	}
	return fail(next, res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests, fmt.Errorf("%d %s", res.StatusCode, Line(said)))
}

// unreached says why nobody was reached, what to do, and whether trying again may help.
func (c *Client) unreached(err error) (next string, again bool, why error) {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without method and address, which the issuer's name says
	}
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "is it up, and is it its address?", true, errors.New("no answer in time")
	case errors.Is(err, context.Canceled):
		return "", false, errors.New("nobody waits any more")
	case unknown:
		return "is " + orMachine(c.CAFile) + " the authority of its certificate?", false, fmt.Errorf("its certificate is not believed: %s", Line(err.Error()))
	case name:
		return "give the address that its certificate is for", false, errors.New(Line(err.Error()))
	}
	return "is it up, and is it its address?", true, errors.New(Line(err.Error()))
}

func orMachine(file string) string {
	if file == "" {
		return "one of the machine's roots"
	}
	return file
}

// Line makes one line of what somebody else says, of a bounded length.
func Line(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x2028 || r == 0x2029 }), " ")
	s = strings.ToValidUTF8(strings.TrimSpace(s), "?")
	if len(s) > maxSaid {
		s = strings.ToValidUTF8(s[:maxSaid], "") + "..."
	}
	return s
}
