package v1alpha1

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Ejection takes endpoints that fail real requests out for a while (Envoy: outlier detection). What is 0 never ejects.
type Ejection struct {
	// Consecutive5xx: so many responses of 5xx in a row. Default 5.
	Consecutive5xx *int32 `json:"consecutive5xx,omitempty"`
	// ConsecutiveGateway: so many of 502, 503, 504, or without a response, in a row. Default 5, or consecutive5xx if that is less.
	ConsecutiveGateway *int32 `json:"consecutiveGateway,omitempty"`
	// Interval between looks at rates, and between restorations. Default 10s.
	Interval Duration `json:"interval,omitempty"`
	// Base is how long the first ejection lasts; later ones last that times their number, up to Maximum. Defaults 30s and 5m, or base if that is longer.
	// With Probe that is the longest: an ejection lasts as long as failures of endpoints were seen to last, and until that is
	// known as long as the endpoint has been out, at first half a second (docs/design/retries.md).
	Base    Duration `json:"base,omitempty"`
	Maximum Duration `json:"maximum,omitempty"`
	// MaxPercent of the endpoints are ejected at a time, but always one may be. Default 50.
	MaxPercent *int32 `json:"maxPercent,omitempty"`
	// SuccessRate ejects who succeeds far less often than the others.
	SuccessRate *SuccessRate `json:"successRate,omitempty"`
	// FailurePercent ejects who fails that often.
	FailurePercent *FailurePercent `json:"failurePercent,omitempty"`
	// Latency ejects who answers far slower than the others.
	Latency *LatencyEjection `json:"latency,omitempty"`
	// Probe: an endpoint whose time is over gets one request first, and its share only if that goes well; a failure ejects it
	// again. Default true; false: its share at once, after fixed times.
	Probe *bool `json:"probe,omitempty"`
}

// LatencyEjection ejects endpoints whose mean response time of an interval is so many times the median of all endpoints'.
type LatencyEjection struct {
	Factor          float64  `json:"factor,omitempty"`          // default 3
	Least           Duration `json:"least,omitempty"`           // nobody faster than that is slow; default 10ms
	MinimumHosts    int32    `json:"minimumHosts,omitempty"`    // that have MinimumRequests, else nobody is; default 3
	MinimumRequests int32    `json:"minimumRequests,omitempty"` // in an interval; default 20
}

// SuccessRate ejects endpoints whose success rate is below the average by so many standard deviations.
type SuccessRate struct {
	Deviations      float64 `json:"deviations,omitempty"`      // default 1.9, as Envoy's
	MinimumHosts    int32   `json:"minimumHosts,omitempty"`    // that have MinimumRequests, else nobody is; default 5
	MinimumRequests int32   `json:"minimumRequests,omitempty"` // in an interval; default 100
}

// FailurePercent ejects endpoints of whose requests so many fail.
type FailurePercent struct {
	Threshold       int32 `json:"threshold,omitempty"`       // percent; default 85, as Envoy's
	MinimumHosts    int32 `json:"minimumHosts,omitempty"`    // default 5
	MinimumRequests int32 `json:"minimumRequests,omitempty"` // default 50
}

// HealthCheck asks every endpoint, from every calling proxy, whether it is well. Exactly one of http, grpc and tcp is given.
type HealthCheck struct {
	HTTP *HTTPCheck `json:"http,omitempty"`
	GRPC *GRPCCheck `json:"grpc,omitempty"`
	TCP  *TCPCheck  `json:"tcp,omitempty"`
	// Interval between two checks, 100ms to 1h, default 5s; Timeout of one, default 1s, or interval if that is shorter.
	Interval Duration `json:"interval,omitempty"`
	Timeout  Duration `json:"timeout,omitempty"`
	// NoTraffic is the interval while nothing was sent to the service yet; default Interval.
	NoTraffic Duration `json:"noTraffic,omitempty"`
	// Jitter is added to an interval, at most; default a tenth of it, so that callers do not ask together.
	Jitter Duration `json:"jitter,omitempty"`
	// Unhealthy and Healthy are how many results in a row change the verdict; defaults 3 and 2. A wrong answer counts at once.
	// A new endpoint is healthy until then: its own proxy has found it ready.
	Unhealthy int32 `json:"unhealthy,omitempty"`
	Healthy   int32 `json:"healthy,omitempty"`
}

// HTTPCheck asks for a path.
type HTTPCheck struct {
	Path     string        `json:"path,omitempty"`   // default "/"
	Method   string        `json:"method,omitempty"` // GET (default), HEAD, OPTIONS or POST
	Host     string        `json:"host,omitempty"`   // default the service's own name
	Statuses []StatusRange `json:"statuses,omitempty"`
}

// StatusRange is the statuses of a healthy answer, both included. Default 200 to 299.
type StatusRange struct {
	From int32 `json:"from"`
	To   int32 `json:"to"`
}

// GRPCCheck asks by gRPC's health protocol.
type GRPCCheck struct {
	Service string `json:"service,omitempty"` // "": the whole server
}

// TCPCheck connects, and may say something and wait for something, both as text.
type TCPCheck struct {
	Send    string   `json:"send,omitempty"`
	Receive []string `json:"receive,omitempty"`
}

func defaultEjection(e *Ejection) {
	if e == nil {
		return
	}
	e.Consecutive5xx = or(e.Consecutive5xx, 5)
	gateway := int32(5)
	if n := *e.Consecutive5xx; n > 0 { // which counts them too
		gateway = min(gateway, n)
	}
	e.ConsecutiveGateway = or(e.ConsecutiveGateway, gateway)
	e.MaxPercent = or(e.MaxPercent, 50)
	text(&e.Interval, "10s")
	text(&e.Base, "30s")
	if e.Base.Value() > 5*time.Minute {
		text(&e.Maximum, e.Base)
	}
	text(&e.Maximum, "5m")
	if s := e.SuccessRate; s != nil {
		if s.Deviations == 0 {
			s.Deviations = 1.9
		}
		number(&s.MinimumHosts, 5)
		number(&s.MinimumRequests, 100)
	}
	e.Probe = or(e.Probe, true)
	if l := e.Latency; l != nil {
		if l.Factor == 0 {
			l.Factor = 3
		}
		text(&l.Least, "10ms")
		number(&l.MinimumHosts, 3)
		number(&l.MinimumRequests, 20)
	}
	if f := e.FailurePercent; f != nil {
		number(&f.Threshold, 85)
		number(&f.MinimumHosts, 5)
		number(&f.MinimumRequests, 50)
	}
}

func defaultHealthChecks(list []HealthCheck) {
	for i := range list {
		h := &list[i]
		text(&h.Interval, "5s")
		if i := h.Interval.Value(); i > 0 && i < time.Second {
			text(&h.Timeout, h.Interval)
		}
		text(&h.Timeout, "1s")
		text(&h.NoTraffic, h.Interval)
		if h.Jitter == "" {
			h.Jitter = Duration(fmt.Sprintf("%dms", min(h.Interval.Value().Milliseconds()/10, 99999)))
		}
		number(&h.Unhealthy, 3)
		number(&h.Healthy, 2)
		if p := h.HTTP; p != nil {
			text(&p.Path, "/")
			text(&p.Method, "GET")
			if p.Statuses == nil {
				p.Statuses = []StatusRange{{200, 299}}
			}
		}
	}
}

func (c *check) ejection(at string, e *Ejection) {
	if e == nil {
		return
	}
	c.between(at+".consecutive5xx", int64(*e.Consecutive5xx), 0, 10000)
	c.between(at+".consecutiveGateway", int64(*e.ConsecutiveGateway), 0, 10000)
	if *e.ConsecutiveGateway > *e.Consecutive5xx && *e.Consecutive5xx > 0 {
		c.fail(at+".consecutiveGateway", "%d is never reached: consecutive5xx ejects at %d already, and counts them too", *e.ConsecutiveGateway, *e.Consecutive5xx)
	}
	c.span(at+".interval", e.Interval, 100*time.Millisecond, time.Hour)
	base := c.span(at+".base", e.Base, 100*time.Millisecond, 24*time.Hour)
	if most := c.span(at+".maximum", e.Maximum, 100*time.Millisecond, 24*time.Hour); base > most {
		c.fail(at+".maximum", "%s is shorter than base %s", e.Maximum, e.Base)
	}
	c.between(at+".maxPercent", int64(*e.MaxPercent), 0, 100)
	if s := e.SuccessRate; s != nil {
		if s.Deviations < 0.1 || s.Deviations > 10 {
			c.fail(at+".successRate.deviations", "%g is out of bounds: write 0.1 to 10", s.Deviations)
		}
		c.between(at+".successRate.minimumHosts", int64(s.MinimumHosts), 2, 10000)
		c.between(at+".successRate.minimumRequests", int64(s.MinimumRequests), 1, 1_000_000)
	}
	if l := e.Latency; l != nil {
		if l.Factor < 1.1 || l.Factor > 100 {
			c.fail(at+".latency.factor", "%g is out of bounds: write 1.1 to 100", l.Factor)
		}
		c.span(at+".latency.least", l.Least, 100*time.Microsecond, time.Hour)
		c.between(at+".latency.minimumHosts", int64(l.MinimumHosts), 2, 10000)
		c.between(at+".latency.minimumRequests", int64(l.MinimumRequests), 1, 1_000_000)
	}
	if f := e.FailurePercent; f != nil {
		c.between(at+".failurePercent.threshold", int64(f.Threshold), 1, 100)
		c.between(at+".failurePercent.minimumHosts", int64(f.MinimumHosts), 1, 10000)
		c.between(at+".failurePercent.minimumRequests", int64(f.MinimumRequests), 1, 1_000_000)
	}
}

func (c *check) healthChecks(at string, list []HealthCheck) {
	if list != nil && len(list) != 1 {
		c.fail(at, "has %d entries: write one, or leave it out", len(list))
	}
	for i := range list {
		c.healthCheck(fmt.Sprintf("%s[%d]", at, i), &list[i])
	}
}

func (c *check) healthCheck(at string, h *HealthCheck) {
	kinds := 0
	for _, given := range []bool{h.HTTP != nil, h.GRPC != nil, h.TCP != nil} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		c.fail(at, "asks in %d ways: write one of http, grpc and tcp", kinds)
	}
	interval := c.span(at+".interval", h.Interval, 100*time.Millisecond, time.Hour)
	if timeout := c.span(at+".timeout", h.Timeout, time.Millisecond, time.Hour); timeout > interval {
		c.fail(at+".timeout", "%s is longer than the interval %s", h.Timeout, h.Interval)
	}
	c.span(at+".noTraffic", h.NoTraffic, 100*time.Millisecond, 24*time.Hour)
	c.span(at+".jitter", h.Jitter, 0, time.Hour)
	c.between(at+".unhealthy", int64(h.Unhealthy), 1, 100)
	c.between(at+".healthy", int64(h.Healthy), 1, 100)
	if p := h.HTTP; p != nil {
		c.httpCheck(at+".http", p)
	}
	if p := h.GRPC; p != nil {
		c.plain(at+".grpc.service", p.Service)
	}
	if p := h.GRPC; p != nil && len(p.Service) > 256 {
		c.fail(at+".grpc.service", "has %d bytes: at most 256", len(p.Service))
	}
	if p := h.TCP; p != nil {
		if len(p.Send) > 1024 || len(p.Receive) > 16 || slices.ContainsFunc(p.Receive, func(s string) bool { return s == "" || len(s) > 1024 }) {
			c.fail(at+".tcp", "send and each of at most 16 texts of receive have at most 1024 bytes, and what is waited for is not empty")
		}
	}
}

func (c *check) httpCheck(at string, p *HTTPCheck) {
	path, _, _ := strings.Cut(p.Path, "?")
	if !strings.HasPrefix(p.Path, "/") || len(p.Path) > maxPath || !pathBytes(path) || strings.ContainsAny(p.Path, " #\r\n\t") {
		c.fail(at+".path", "%q is not a path: it begins with '/'", p.Path)
	}
	if !slices.Contains([]string{"GET", "HEAD", "OPTIONS", "POST"}, p.Method) {
		c.fail(at+".method", "%q: write GET, HEAD, OPTIONS or POST", p.Method)
	}
	if p.Host != "" && !hostText(p.Host) {
		c.fail(at+".host", "%q is not the name of a host", p.Host)
	}
	if len(p.Statuses) == 0 || len(p.Statuses) > 16 {
		c.fail(at+".statuses", "has %d entries: write 1 to 16, or leave it out for 200 to 299", len(p.Statuses))
	}
	for i, r := range p.Statuses {
		if r.From < 100 || r.To > 599 || r.From > r.To {
			c.fail(fmt.Sprintf("%s.statuses[%d]", at, i), "%d to %d is no range within 100 to 599", r.From, r.To)
		}
	}
}

func hostText(s string) bool {
	return only(s, lower+upper+digits+"-._:[]", lower+upper+digits+"[]", 255)
}
