package v1alpha1

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// PriorityRule gives requests a class. Under overload batch is shed first, critical last.
type PriorityRule struct {
	// Match is written as in an HTTPRoute; left out: every request.
	Match *HTTPRouteMatch `json:"match,omitempty"`
	// From names services of callers, "shop" (of the policy's namespace) or "shop.default"; none: all.
	From []string `json:"from,omitempty"`
	// Class is critical, default or batch.
	Class string `json:"class"`
}

// RateLimit bounds requests, bytes or connections by a token bucket in each workload's own proxy, or asks a rate-limit
// service. Exactly one of requests, bytes and connections is given, unless global is.
type RateLimit struct {
	// Name in metrics, response fields and explanations; unique in the policy.
	Name string `json:"name"`
	// Side is where the limit is kept, of a Service. Server: by each workload of it, for what is sent to it. Caller: by the proxy
	// of each workload that calls, for what that one sends to it. Outside: by each workload of it, for the connections and bytes
	// that it exchanges with what is outside the mesh. Default Server.
	Side string `json:"side,omitempty"`
	// Match is written as in an HTTPRoute; left out: every request.
	Match *HTTPRouteMatch `json:"match,omitempty"`
	// Requests, bytes (of bodies, both ways) or new connections per window.
	Requests    int32    `json:"requests,omitempty"`
	Bytes       int32    `json:"bytes,omitempty"`
	Connections int32    `json:"connections,omitempty"`
	Window      Duration `json:"window,omitempty"` // a duration of 1ms to 24h; default 1s
	// Burst is how many of them at once; default as many as per window.
	Burst int32 `json:"burst,omitempty"`
	// By says which requests share a bucket; none: all of them. At most 10000 buckets are kept.
	By []RateKey `json:"by,omitempty"`
	// Headers: responses carry the RateLimit fields. Default false.
	Headers bool `json:"headers,omitempty"`
	// Status of a refusal: 400 to 599, default 429.
	Status int32 `json:"status,omitempty"`
	// Shadow only counts, and refuses nothing.
	Shadow bool `json:"shadow,omitempty"`
	// Global asks a service that counts for the whole mesh (envoy.service.ratelimit.v3).
	Global *GlobalLimit `json:"global,omitempty"`
}

// RateKey is one thing that requests are told apart by. Exactly one of the first six is given.
type RateKey struct {
	Caller  bool   `json:"caller,omitempty"`  // the calling service
	Address bool   `json:"address,omitempty"` // of the caller
	Header  string `json:"header,omitempty"`
	Path    bool   `json:"path,omitempty"`
	Method  bool   `json:"method,omitempty"`
	Value   string `json:"value,omitempty"` // the same for all, for descriptors
	// Key of the descriptor's entry, with global; default Envoy's.
	Key string `json:"key,omitempty"`
}

// GlobalLimit says whom to ask.
type GlobalLimit struct {
	// Service and Port in the policy's namespace; left out: the control plane itself.
	Service string   `json:"service,omitempty"`
	Port    int32    `json:"port,omitempty"`
	Domain  string   `json:"domain,omitempty"`  // default "tulle"
	Timeout Duration `json:"timeout,omitempty"` // default 20ms
	// FailClosed refuses requests while nobody answers. Default false: they pass.
	FailClosed bool `json:"failClosed,omitempty"`
}

// Capacity is what one workload takes at a time, from all callers together. 0: no bound.
type Capacity struct {
	Connections int32 `json:"connections,omitempty"`
	Requests    int32 `json:"requests,omitempty"`
}

// Concurrency bounds what one workload works on at once by what its response times say about its queue.
type Concurrency struct {
	Least int32    `json:"least,omitempty"` // of the limit; default 4
	Most  int32    `json:"most,omitempty"`  // default 10000
	Queue Duration `json:"queue,omitempty"` // how long a request waits for its turn: 0s to 10s; default 0s, not at all
	// Fairness says whose requests have turns alike while they wait; default callers.
	Fairness *Fairness `json:"fairness,omitempty"`
}

// Fairness is whose requests have turns alike: a tenant who sends many waits, and others do not. 64 are told apart at a time.
type Fairness struct {
	// By tells tenants apart, 1 to 4; default the calling service.
	By []TenantKey `json:"by,omitempty"`
	// Weights of tenants who are to have more than one turn to everybody else's. They need one key, caller or header.
	Weights []TenantWeight `json:"weights,omitempty"`
}

// TenantKey is one thing that tenants are told apart by. Exactly one is given.
type TenantKey struct {
	Caller  bool   `json:"caller,omitempty"`  // the calling service, as it has proven
	Address bool   `json:"address,omitempty"` // of the caller
	Header  string `json:"header,omitempty"`  // its value, which callers choose: for what a gateway has checked
}

// TenantWeight is how many turns a tenant has to one of others.
type TenantWeight struct {
	Tenant string `json:"tenant"` // "shop" (of the policy's namespace) or "shop.default"; with by.header its value
	Weight int32  `json:"weight"` // 1 to 100
}

func defaultPriority(list []PriorityRule) {
	for i := range list {
		if list[i].Match != nil {
			defaultMatch(list[i].Match)
		}
	}
}

func defaultRateLimits(list []RateLimit) {
	for i := range list {
		l := &list[i]
		if l.Match != nil {
			defaultMatch(l.Match)
		}
		number(&l.Status, 429)
		text(&l.Side, "Server")
		if l.Requests+l.Bytes+l.Connections != 0 {
			text(&l.Window, "1s")
			number(&l.Burst, max(l.Requests, l.Bytes, l.Connections))
		}
		if g := l.Global; g != nil {
			text(&g.Domain, "tulle")
			text(&g.Timeout, "20ms")
		}
	}
}

func defaultConcurrency(p *Concurrency) {
	if p != nil {
		number(&p.Least, 4)
		number(&p.Most, 10000)
		text(&p.Queue, "0s")
		if f := p.Fairness; f != nil && len(f.By) == 0 {
			f.By = []TenantKey{{Caller: true}}
		}
	}
}

func (c *check) priority(at string, list []PriorityRule) {
	if list != nil && (len(list) == 0 || len(list) > 64) {
		c.fail(at, "has %d entries: write 1 to 64, or leave it out", len(list))
	}
	for i := range list {
		r, at := &list[i], fmt.Sprintf("%s[%d]", at, i)
		if !slices.Contains([]string{"critical", "default", "batch"}, r.Class) {
			c.fail(at+".class", "%q is not a class: write critical, default or batch", r.Class)
		}
		if r.Match != nil {
			c.match(at+".match", r.Match)
		}
		for j, f := range r.From {
			name, ns, dot := strings.Cut(f, ".")
			if !label(name) || dot && !label(ns) {
				c.fail(fmt.Sprintf("%s.from[%d]", at, j), "%q is not a service: write shop or shop.default", f)
			}
		}
		if r.Match == nil && len(r.From) == 0 && i+1 < len(list) {
			c.fail(at, "holds for every request, so what comes after it means nothing: write it last")
		}
	}
}

func (c *check) rateLimits(at string, list []RateLimit) {
	if list != nil && (len(list) == 0 || len(list) > 16) {
		c.fail(at, "has %d entries: write 1 to 16, or leave it out", len(list))
	}
	names, connections := map[string]bool{}, map[string]int{}
	for i := range list {
		l, at := &list[i], fmt.Sprintf("%s[%d]", at, i)
		if l.Connections != 0 {
			if connections[l.Side]++; connections[l.Side] == 2 {
				c.fail(at+".connections", "is the second limit of connections of side %s: write one", l.Side)
			}
		}
		if !token(l.Name) || len(l.Name) > 63 || names[l.Name] {
			c.fail(at+".name", "%q is not a name of at most 63 letters, digits and '-', or is there twice", l.Name)
		}
		names[l.Name] = true
		if l.Match != nil {
			c.match(at+".match", l.Match)
		}
		c.rate(at, l)
		for j := range l.By {
			c.rateKey(fmt.Sprintf("%s.by[%d]", at, j), &l.By[j], l)
		}
		if len(l.By) > 8 {
			c.fail(at+".by", "has %d entries: at most 8", len(l.By))
		}
		c.between(at+".status", int64(l.Status), 400, 599)
		c.global(at+".global", l)
		c.side(at, l)
	}
}

// side checks what means nothing where the limit is kept.
func (c *check) side(at string, l *RateLimit) {
	switch l.Side {
	case "", "Server":
		return
	case "Caller", "Outside":
	default:
		c.fail(at+".side", "%q is no side: write Server, Caller or Outside", l.Side)
		return
	}
	if l.Global != nil {
		c.fail(at+".global", "means nothing with side %s, which each proxy keeps for itself: remove one of them", l.Side)
	}
	for j := range l.By {
		if l.By[j].Caller || l.By[j].Address {
			c.fail(fmt.Sprintf("%s.by[%d]", at, j), "means nothing with side %s: each caller has its own limit already", l.Side)
		}
	}
	if l.Side == "Outside" && (l.Requests != 0 || l.Match != nil || len(l.By) > 0 || l.Headers) {
		c.fail(at, "side Outside knows connections and bytes, and no requests: remove requests, match, by and headers")
	}
}

// rate checks how much per how long.
func (c *check) rate(at string, l *RateLimit) {
	kinds := 0
	for _, n := range []int32{l.Requests, l.Bytes, l.Connections} {
		if n != 0 {
			kinds++
		}
		if n < 0 {
			c.fail(at, "%d is less than nothing: write 1 or more", n)
		}
	}
	switch {
	case l.Global != nil && (kinds > 0 || l.Window != "" || l.Burst != 0) && l.Global.Service != "":
		c.fail(at, "global asks %s, which knows how much: remove requests, bytes, connections, window and burst", l.Global.Service)
	case (l.Global == nil || l.Global.Service == "") && kinds != 1:
		c.fail(at, "bounds %d things: write one of requests, bytes and connections", kinds)
	case l.Global != nil && l.Bytes+l.Connections != 0:
		c.fail(at, "global counts requests only")
	case l.Connections != 0 && (l.Match != nil || len(l.By) > 0 || l.Headers):
		c.fail(at, "connections are counted before there is a request: remove match, by and headers")
	case l.Connections+l.Bytes != 0 && l.Status != 429 && l.Status != 0:
		c.fail(at+".status", "means nothing: bytes are slowed down and connections reset, only requests are answered: remove it")
	}
	if kinds > 0 {
		c.span(at+".window", l.Window, time.Millisecond, 24*time.Hour)
		c.between(at+".burst", int64(l.Burst), 1, 1<<31-1)
	}
}

func (c *check) rateKey(at string, k *RateKey, l *RateLimit) {
	kinds := 0
	for _, given := range []bool{k.Caller, k.Address, k.Header != "", k.Path, k.Method, k.Value != ""} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		c.fail(at, "names %d things: write one of caller, address, header, path, method and value", kinds)
	}
	if k.Header != "" && !token(k.Header) {
		c.fail(at+".header", "%q is not the name of a header", k.Header)
	}
	if l.Global == nil && (k.Key != "" || k.Value != "") {
		c.fail(at, "key and value are for descriptors: they mean something with global only")
	}
	c.plain(at+".key", k.Key)
	c.plain(at+".value", k.Value)
	if len(k.Key) > 256 || len(k.Value) > 256 {
		c.fail(at, "key and value have at most 256 bytes")
	}
}

func (c *check) global(at string, l *RateLimit) {
	g := l.Global
	if g == nil {
		return
	}
	c.plain(at+".domain", g.Domain)
	if g.Port < 0 || g.Port > 65535 {
		c.fail(at+".port", "%d is not a port: write 1 to 65535", g.Port)
	} else if (g.Service == "") != (g.Port == 0) || g.Service != "" && !label(g.Service) {
		c.fail(at+".service", "%q with port %d: write the name of a Service and its port, or neither for the control plane itself", g.Service, g.Port)
	}
	if len(g.Domain) > 256 {
		c.fail(at+".domain", "has %d bytes: at most 256", len(g.Domain))
	}
	c.span(at+".timeout", g.Timeout, time.Millisecond, 10*time.Second)
}

func (c *check) capacity(at string, p *Capacity) {
	if p == nil {
		return
	}
	if *p == (Capacity{}) {
		c.fail(at, "bounds nothing: write connections or requests")
	}
	c.between(at+".connections", int64(p.Connections), 0, 1<<31-1)
	c.between(at+".requests", int64(p.Requests), 0, 1<<31-1)
}

func (c *check) concurrency(at string, p *Concurrency) {
	if p == nil {
		return
	}
	c.between(at+".least", int64(p.Least), 1, 1_000_000)
	c.between(at+".most", int64(p.Most), 1, 1_000_000)
	if p.Least > p.Most {
		c.fail(at+".least", "%d is more than most, %d", p.Least, p.Most)
	}
	queue := c.span(at+".queue", p.Queue, 0, 10*time.Second)
	if p.Fairness != nil {
		c.fairness(at+".fairness", p.Fairness, queue)
	}
}

func (c *check) fairness(at string, f *Fairness, queue time.Duration) {
	if queue == 0 {
		c.fail(at, "means nothing without a queue, in which requests wait for their turn: write for example queue: 50ms")
	}
	if len(f.By) > 4 {
		c.fail(at+".by", "has %d entries: at most 4", len(f.By))
	}
	for i := range f.By {
		k, kinds := f.By[i], 0
		for _, given := range []bool{k.Caller, k.Address, k.Header != ""} {
			if given {
				kinds++
			}
		}
		if kinds != 1 {
			c.fail(fmt.Sprintf("%s.by[%d]", at, i), "names %d things: write one of caller, address and header", kinds)
		}
		if k.Header != "" && !token(k.Header) {
			c.fail(fmt.Sprintf("%s.by[%d].header", at, i), "%q is not the name of a header", k.Header)
		}
	}
	if len(f.Weights) > 64 {
		c.fail(at+".weights", "has %d entries: at most 64", len(f.Weights))
	}
	if len(f.Weights) > 0 && (len(f.By) != 1 || !f.By[0].Caller && f.By[0].Header == "") {
		c.fail(at+".weights", "are of callers, or of the values of a header: write one of them alone in by")
		return
	}
	seen := map[string]bool{}
	for i, w := range f.Weights {
		at := fmt.Sprintf("%s.weights[%d]", at, i)
		name, ns, dot := strings.Cut(w.Tenant, ".")
		switch {
		case f.By[0].Caller && (!label(name) || dot && !label(ns)):
			c.fail(at+".tenant", "%q is not a service: write shop or shop.default", w.Tenant)
		case w.Tenant == "" || len(w.Tenant) > 256 || seen[w.Tenant] || strings.ContainsFunc(w.Tenant, unicode.IsControl):
			c.fail(at+".tenant", "%q is no value of 1 to 256 bytes, or there twice", w.Tenant)
		}
		seen[w.Tenant] = true
		c.between(at+".weight", int64(w.Weight), 1, 100)
	}
}
