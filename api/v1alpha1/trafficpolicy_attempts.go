package v1alpha1

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Timeouts of a request. A value that is left out is taken from the policy behind this one; "0s" is none. What a route says
// in its own rules counts before any policy.
type Timeouts struct {
	// Request is from the end of the request's head to the end of the response, whatever is tried within.
	Request Duration `json:"request,omitempty"`
	// Attempt is one attempt, to the end of its response's head.
	Attempt Duration `json:"attempt,omitempty"`
	// Idle ends a request or stream on which nothing moves.
	Idle Duration `json:"idle,omitempty"`
	// Stream ends a stream (gRPC, WebSocket, long answers) that is as old, whatever moves.
	Stream Duration `json:"stream,omitempty"`
}

// Retries are further attempts of a request. The defaults are what is safe: what has surely not been acted on is sent again;
// what may have been acted on only if its method is idempotent (RFC 9110 section 9.2.2), it carries Idempotency-Key, or
// anyMethod says that acting twice does no harm.
type Retries struct {
	// Attempts besides the first: 0 to 10, default 2. 0: none, not even of what was not delivered.
	Attempts *int32 `json:"attempts,omitempty"`
	// When: untouched (no connection, refused), reset (it broke before a response), timeout (timeouts.attempt), gateway (502, 503,
	// 504), 5xx, conflict (409). Default untouched, reset and gateway.
	When []string `json:"when,omitempty"`
	// Statuses of HTTP, 400 to 599, besides.
	Statuses []int32 `json:"statuses,omitempty"`
	// GRPC statuses by name, such as unavailable, besides; with anyMethod only, since every gRPC call is a POST.
	GRPC []string `json:"grpc,omitempty"`
	// AnyMethod may be sent again though it may have been acted on.
	AnyMethod bool `json:"anyMethod,omitempty"`
	// Wait before a further attempt. Without base it is learned from how long failures of the service last.
	Wait *RetryWait `json:"wait,omitempty"`
	// RetryAfter of a response is honoured up to this; "0s": not at all. Default 10s.
	RetryAfter Duration `json:"retryAfter,omitempty"`
	// SameHost: an endpoint that has failed the request may be picked again though there are others. Default false.
	SameHost bool `json:"sameHost,omitempty"`
}

// RetryWait bounds the wait before a further attempt.
type RetryWait struct {
	// Base pins the wait: uniform between 0 and base·(2^n−1), at most maximum. "": learned, between least and maximum.
	Base    Duration `json:"base,omitempty"`
	Least   Duration `json:"least,omitempty"`   // default 1ms
	Maximum Duration `json:"maximum,omitempty"` // default ten times base, or 2s where it is learned
}

// RetryBudget bounds what further attempts add to what a service is sent, along the whole chain of services.
type RetryBudget struct {
	Percent *int32 `json:"percent,omitempty"` // of the requests of ten seconds: 0 to 100, default 20
	Least   *int32 `json:"least,omitempty"`   // attempts in ten seconds that are allowed whatever percent says; default 10
}

// Hedging sends a second attempt before the first has answered; the first answer wins, the other is cancelled. Only requests
// that may be sent again are hedged, and within the budget.
type Hedging struct {
	// After so long without a response, 1ms to 1m. With quantile: at least.
	After Duration `json:"after,omitempty"`
	// Quantile of the service's response times after which it is sent, in percent: 50 to 99.9.
	Quantile float64 `json:"quantile,omitempty"`
	// Most attempts under way at once: 2 (default) to 4.
	Most int32 `json:"most,omitempty"`
}

// Session keeps a client with the endpoint that took its first request, as Gateway API's sessionPersistence does.
type Session struct {
	Type     string   `json:"type,omitempty"` // Cookie (default) or Header
	Name     string   `json:"name,omitempty"` // of the cookie or header; default tulle-session
	Path     string   `json:"path,omitempty"` // of the cookie; default "/"
	Lifetime Duration `json:"lifetime,omitempty"`
	Absolute Duration `json:"absoluteTimeout,omitempty"`
	Idle     Duration `json:"idleTimeout,omitempty"`
}

// GRPCStatuses answers the names of gRPC's statuses, by number.
func GRPCStatuses() []string {
	return strings.Fields("ok cancelled unknown invalid-argument deadline-exceeded not-found already-exists permission-denied " +
		"resource-exhausted failed-precondition aborted out-of-range unimplemented internal unavailable data-loss unauthenticated")
}

// retryConditions are what may stand in retries.when.
func retryConditions() []string {
	return strings.Fields("untouched reset timeout gateway 5xx conflict")
}

func defaultRetries(r *Retries) {
	if r == nil {
		return
	}
	r.Attempts = or(r.Attempts, 2)
	if r.When == nil {
		r.When = []string{"untouched", "reset", "gateway"}
	}
	text(&r.RetryAfter, "10s")
	r.Wait = or(r.Wait, RetryWait{})
	w := r.Wait
	if w.Base == "" {
		text(&w.Least, "1ms")
		text(&w.Maximum, "2s")
	} else if w.Maximum == "" {
		w.Maximum = Duration(fmt.Sprintf("%dms", min(10*w.Base.Value().Milliseconds(), 99999)))
	}
}

func defaultRetryBudget(b *RetryBudget) {
	if b != nil {
		b.Percent, b.Least = or(b.Percent, 20), or(b.Least, 10)
	}
}

func defaultHedging(h *Hedging) {
	if h != nil {
		number(&h.Most, 2)
	}
}

func defaultSession(s *Session) {
	if s == nil {
		return
	}
	text(&s.Type, "Cookie")
	text(&s.Name, "tulle-session")
	if s.Type == "Cookie" {
		text(&s.Path, "/")
	}
}

func (c *check) policyTimeouts(at string, t *Timeouts) {
	if t == nil {
		return
	}
	if *t == (Timeouts{}) {
		c.fail(at, "says nothing: write at least one of request, attempt, idle and stream")
	}
	request := c.span(at+".request", t.Request, 0, 24*time.Hour)
	if attempt := c.span(at+".attempt", t.Attempt, 0, 24*time.Hour); request > 0 && attempt > request {
		c.fail(at+".attempt", "%s is longer than the request's %s", t.Attempt, t.Request)
	}
	c.span(at+".idle", t.Idle, 0, 24*time.Hour)
	if stream := c.span(at+".stream", t.Stream, 0, 720*time.Hour); stream > 0 && request > stream {
		c.fail(at+".stream", "%s is shorter than the request's %s", t.Stream, t.Request)
	}
}

func (c *check) retries(at string, r *Retries) {
	if r == nil {
		return
	}
	c.between(at+".attempts", int64(*r.Attempts), 0, 10)
	c.names(at+".when", r.When, retryConditions())
	c.names(at+".grpc", r.GRPC, GRPCStatuses()[1:])
	if len(r.GRPC) > 0 && !r.AnyMethod {
		c.fail(at+".grpc", "every gRPC call is a POST, and a call that was answered may have been acted on: write anyMethod: true too if acting twice does no harm, or remove it")
	}
	if *r.Attempts > 0 && len(r.When)+len(r.Statuses)+len(r.GRPC) == 0 {
		c.fail(at+".when", "is empty, and so are statuses and grpc: nothing is ever sent again; write attempts: 0, or say when")
	}
	seen := map[int32]bool{}
	for i, s := range r.Statuses {
		if s < 400 || s > 599 || seen[s] {
			c.fail(fmt.Sprintf("%s.statuses[%d]", at, i), "%d is not a status of 400 to 599, or is there twice", s)
		}
		seen[s] = true
	}
	if len(r.Statuses) > 32 {
		c.fail(at+".statuses", "has %d entries: at most 32", len(r.Statuses))
	}
	c.span(at+".retryAfter", r.RetryAfter, 0, time.Hour)
	w := r.Wait
	base := c.span(at+".wait.base", w.Base, time.Millisecond, time.Minute)
	least := c.span(at+".wait.least", w.Least, 0, time.Minute)
	most := c.span(at+".wait.maximum", w.Maximum, time.Millisecond, 10*time.Minute)
	switch {
	case base > 0 && w.Least != "":
		c.fail(at+".wait.least", "means nothing with base, which pins the wait: remove one of them")
	case most < base:
		c.fail(at+".wait.maximum", "%s is shorter than base %s", w.Maximum, w.Base)
	case most < least:
		c.fail(at+".wait.maximum", "%s is shorter than least %s", w.Maximum, w.Least)
	}
}

// names checks a list of words.
func (c *check) names(at string, list, known []string) {
	for i, w := range list {
		if !slices.Contains(known, w) || slices.Index(list, w) != i {
			c.fail(fmt.Sprintf("%s[%d]", at, i), "%q is not known or is there twice: write %s", w, strings.Join(known, ", "))
		}
	}
}

func (c *check) retryBudget(at string, b *RetryBudget) {
	if b != nil {
		c.between(at+".percent", int64(*b.Percent), 0, 100)
		c.between(at+".least", int64(*b.Least), 0, 1000)
		if *b.Percent == 0 && *b.Least == 0 {
			c.fail(at, "allows no attempt at all: write retries: {attempts: 0} for that")
		}
	}
}

func (c *check) hedging(at string, h *Hedging) {
	if h == nil {
		return
	}
	if h.After == "" && h.Quantile == 0 {
		c.fail(at, "does not say when: write after, such as 50ms, or quantile, such as 95")
	}
	c.span(at+".after", h.After, time.Millisecond, time.Minute)
	if h.Quantile != 0 && (h.Quantile < 50 || h.Quantile > 99.9) {
		c.fail(at+".quantile", "%g is out of bounds: write 50 to 99.9 percent", h.Quantile)
	}
	c.between(at+".most", int64(h.Most), 2, 4)
}

func (c *check) session(at string, s *Session) {
	if s == nil {
		return
	}
	if s.Type != "Cookie" && s.Type != "Header" {
		c.fail(at+".type", "%q is not known: write Cookie or Header", s.Type)
	}
	if !token(s.Name) {
		c.fail(at+".name", "%q is not the name of a cookie or header", s.Name)
	}
	if s.Type == "Header" && (s.Path != "" || s.Lifetime != "") {
		c.fail(at, "path and lifetime are a cookie's: remove them, or write type: Cookie")
	} else if s.Type == "Cookie" && !cookiePath(s.Path) {
		c.fail(at+".path", "%q is not the path of a cookie: it begins with '/'", s.Path)
	}
	c.span(at+".lifetime", s.Lifetime, time.Second, 99999*time.Hour)
	absolute := c.span(at+".absoluteTimeout", s.Absolute, time.Second, 99999*time.Hour)
	if idle := c.span(at+".idleTimeout", s.Idle, time.Second, 99999*time.Hour); absolute > 0 && idle > absolute {
		c.fail(at+".idleTimeout", "%s is longer than absoluteTimeout %s", s.Idle, s.Absolute)
	}
}
