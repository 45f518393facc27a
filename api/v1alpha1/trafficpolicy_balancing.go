package v1alpha1

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Balancing is which endpoint of a service takes a request.
type Balancing struct {
	// Policy is LeastRequest (default: of two endpoints drawn at random the one with less to do), PeakEWMA, RoundRobin, Random,
	// RingHash, Maglev or LeastUtilized.
	Policy string `json:"policy,omitempty"`
	// Choices are how many endpoints LeastRequest draws: 2 (default) to 16.
	Choices int32 `json:"choices,omitempty"`
	// EWMA are settings of PeakEWMA.
	EWMA *EWMA `json:"ewma,omitempty"`
	// Utilization are settings of LeastUtilized.
	Utilization *Utilization `json:"utilization,omitempty"`
	// Ring is how large RingHash's ring is.
	Ring *Ring `json:"ring,omitempty"`
	// Table is the size of Maglev's: a prime of at most 5000011, default 65537.
	Table int32 `json:"table,omitempty"`
	// SlowStart gives new endpoints less at first.
	SlowStart *SlowStart `json:"slowStart,omitempty"`
	// Locality is what the caller's own region, zone and sub-zone mean.
	Locality *Locality `json:"locality,omitempty"`
	// Shards: endpoints own parts of what `hash` names, and get the requests that are in them.
	Shards *Shards `json:"shards,omitempty"`
	// Panic: if fewer than this percentage of the endpoints are healthy, all are picked. Default 50; 0: never.
	Panic *int32 `json:"panic,omitempty"`
}

// Shards say which endpoints own which requests: what `hash` names is hashed (XXH64) to one of the slots, and the endpoints that
// own it by their label take the request, balanced by the policy among themselves. While a slot has two owners, both do.
type Shards struct {
	Slots int32 `json:"slots"` // how many there are: 1 to 16384
	// Label of workloads: the slots that they own, such as 0-127_256. Default topology.tulle.dev/shards.
	Label string `json:"label,omitempty"`
	// Otherwise is what happens to a request whose slot nobody owns, or that has nothing to hash: Refuse (default, 503 no_endpoint)
	// or Any (any endpoint takes it).
	Otherwise string `json:"otherwise,omitempty"`
}

// EWMA are settings of PeakEWMA.
type EWMA struct {
	Decay Duration `json:"decay,omitempty"` // after which 1/e of an observation is left; default 10s
	Start Duration `json:"start,omitempty"` // taken for the response time of who has not answered yet; default 30ms
}

// Utilization are settings of LeastUtilized (gRFC A58).
type Utilization struct {
	Blackout Duration `json:"blackout,omitempty"` // after an endpoint's first report, before its weight counts; default 10s
	Expiry   Duration `json:"expiry,omitempty"`   // of a report; default 3m
	Update   Duration `json:"update,omitempty"`   // of the weights; default 1s
	// ErrorPenalty weighs errors a second against requests a second, in percent; default 100.
	ErrorPenalty *int32 `json:"errorPenalty,omitempty"`
}

// Ring bounds the size of RingHash's ring.
type Ring struct {
	Minimum int32 `json:"minimum,omitempty"` // default 1024
	Maximum int32 `json:"maximum,omitempty"` // default and at most 8388608
}

// SlowStart gives an endpoint that is new less than its weight for a while.
type SlowStart struct {
	Window Duration `json:"window,omitempty"` // 1s to 1h; must be given
	// Aggression bends the way up: 1 (default) is linear, more is steeper at first. 0.1 to 10.
	Aggression float64 `json:"aggression,omitempty"`
	Least      int32   `json:"least,omitempty"` // percent of its weight at the start; default 10
}

// Locality is what the caller's own locality means.
type Locality struct {
	// Mode is Prefer (default: one's own sub-zone, zone and region come first, in that order), Ignore or Weighted.
	Mode string `json:"mode,omitempty"`
	// SpillAt: with more requests under way per endpoint than this, on the average of a locality, further ones go to the next
	// nearest. 0: only when endpoints are unhealthy.
	SpillAt int32 `json:"spillAt,omitempty"`
	// Failover is where the requests of a region go when it cannot take them, in order.
	Failover []Failover `json:"failover,omitempty"`
	// Labels come before localities: endpoints that share the values of more of these labels with the caller, counted from the
	// first, come first.
	Labels []string `json:"labels,omitempty"`
	// Weights are the shares of Weighted.
	Weights []LocalityShare `json:"weights,omitempty"`
}

// Failover is one way out of a region.
type Failover struct {
	From string `json:"from"` // a region; "*": any
	To   string `json:"to"`
}

// LocalityShare is the share of a locality.
type LocalityShare struct {
	Locality string `json:"locality"` // "region", "region/zone" or "region/zone/sub-zone"
	Weight   int32  `json:"weight"`   // of the sum of all
}

// HashKey is one thing that is hashed. Exactly one of the first five is given. Keys are combined; after a terminal one that
// was there, the rest is not looked at.
type HashKey struct {
	Header   string      `json:"header,omitempty"`
	Cookie   *HashCookie `json:"cookie,omitempty"`
	Query    string      `json:"query,omitempty"`
	Source   bool        `json:"source,omitempty"` // the caller's address
	Path     string      `json:"path,omitempty"`   // "/users/{id}": the segment in braces, as the caller has written it; "*" is any other one, and the path may go on
	Terminal bool        `json:"terminal,omitempty"`
}

// HashCookie is a cookie that is hashed.
type HashCookie struct {
	Name string `json:"name"`
	// TTL: where the request has none, the response sets one, for this long ("0s": until the browser ends). "": it does not.
	TTL  Duration `json:"ttl,omitempty"`
	Path string   `json:"path,omitempty"` // of what is set; default "/"
}

// FallbackRef is a service in the policy's namespace.
type FallbackRef struct {
	Name string `json:"name"`
	Port int32  `json:"port"`
}

// Bounds and defaults of balancing.
const (
	maxChoices  = 16
	maxRing     = 8 << 20
	maxTable    = 5000011 // Envoy's
	maxFailover = 16
	maxHash     = 8
	maxSlots    = 16384
)

func defaultBalancing(b *Balancing) {
	if b == nil {
		return
	}
	text(&b.Policy, "LeastRequest")
	switch {
	case b.Policy == "LeastRequest" && b.Choices == 0:
		b.Choices = 2
	case b.Policy == "PeakEWMA":
		b.EWMA = or(b.EWMA, EWMA{})
		text(&b.EWMA.Decay, "10s")
		text(&b.EWMA.Start, "30ms")
	case b.Policy == "LeastUtilized":
		b.Utilization = or(b.Utilization, Utilization{})
		u := b.Utilization
		text(&u.Blackout, "10s")
		text(&u.Expiry, "3m")
		text(&u.Update, "1s")
		u.ErrorPenalty = or(u.ErrorPenalty, 100)
	case b.Policy == "RingHash":
		b.Ring = or(b.Ring, Ring{})
		number(&b.Ring.Minimum, 1024)
		number(&b.Ring.Maximum, maxRing)
	case b.Policy == "Maglev":
		number(&b.Table, 65537)
	}
	if s := b.SlowStart; s != nil {
		if s.Aggression == 0 {
			s.Aggression = 1
		}
		number(&s.Least, 10)
	}
	if b.Locality != nil {
		text(&b.Locality.Mode, "Prefer")
	}
	if b.Shards != nil {
		text(&b.Shards.Label, "topology.tulle.dev/shards")
		text(&b.Shards.Otherwise, "Refuse")
	}
	b.Panic = or(b.Panic, 50)
}

// number answers v as the default of what is 0.
func number(v *int32, value int32) {
	if *v == 0 {
		*v = value
	}
}

func defaultHash(keys []HashKey) {
	for i := range keys {
		if k := keys[i].Cookie; k != nil && k.TTL != "" {
			text(&k.Path, "/")
		}
	}
}

func (c *check) balancing(at string, b *Balancing) {
	if b == nil {
		return
	}
	policies := strings.Fields("LeastRequest PeakEWMA RoundRobin Random RingHash Maglev LeastUtilized")
	if !slices.Contains(policies, b.Policy) {
		c.fail(at+".policy", "%q is not a policy: write one of %s", b.Policy, strings.Join(policies, ", "))
	}
	for _, own := range []struct {
		field, of string
		given     bool
	}{
		{"choices", "LeastRequest", b.Choices != 0}, {"ewma", "PeakEWMA", b.EWMA != nil}, {"utilization", "LeastUtilized", b.Utilization != nil},
		{"ring", "RingHash", b.Ring != nil}, {"table", "Maglev", b.Table != 0},
	} {
		if own.given && own.of != b.Policy {
			c.fail(at+"."+own.field, "means nothing with policy %s: write policy: %s, or remove it", b.Policy, own.of)
		}
	}
	if b.Choices != 0 {
		c.between(at+".choices", int64(b.Choices), 2, maxChoices)
	}
	if e := b.EWMA; e != nil {
		c.span(at+".ewma.decay", e.Decay, 100*time.Millisecond, time.Hour)
		c.span(at+".ewma.start", e.Start, time.Millisecond, time.Minute)
	}
	if u := b.Utilization; u != nil {
		c.span(at+".utilization.blackout", u.Blackout, 0, time.Hour)
		c.span(at+".utilization.expiry", u.Expiry, time.Second, 24*time.Hour)
		c.span(at+".utilization.update", u.Update, 100*time.Millisecond, time.Hour)
		c.between(at+".utilization.errorPenalty", int64(*u.ErrorPenalty), 0, 10000)
	}
	if r := b.Ring; r != nil {
		c.between(at+".ring.minimum", int64(r.Minimum), 1, maxRing)
		c.between(at+".ring.maximum", int64(r.Maximum), 1, maxRing)
		if r.Minimum > r.Maximum {
			c.fail(at+".ring.minimum", "%d is more than the maximum of %d", r.Minimum, r.Maximum)
		}
	}
	if b.Table != 0 && (b.Table < 2 || b.Table > maxTable || !big.NewInt(int64(b.Table)).ProbablyPrime(0)) {
		c.fail(at+".table", "%d is not a prime of at most %d", b.Table, maxTable)
	}
	if s := b.SlowStart; s != nil {
		c.slowStart(at+".slowStart", b, s)
	}
	c.locality(at+".locality", b)
	if s := b.Shards; s != nil {
		c.between(at+".shards.slots", int64(s.Slots), 1, maxSlots)
		if b.Policy == "RingHash" || b.Policy == "Maglev" {
			c.fail(at+".shards", "means nothing with policy %s, which hashes the same: write another policy, for the owners of one slot", b.Policy)
		}
		if !qualified(s.Label) {
			c.fail(at+".shards.label", "%q is not the name of a label", s.Label)
		}
		if s.Otherwise != "Refuse" && s.Otherwise != "Any" {
			c.fail(at+".shards.otherwise", "%q: write Refuse or Any", s.Otherwise)
		}
	}
	c.between(at+".panic", int64(*b.Panic), 0, 100)
}

func (c *check) slowStart(at string, b *Balancing, s *SlowStart) {
	switch {
	case s.Window == "":
		c.fail(at+".window", "is missing: write how long an endpoint is new, such as 30s")
	case b.Policy == "RingHash" || b.Policy == "Maglev":
		c.fail(at, "means nothing with policy %s, which has a place for every endpoint from the start: remove it", b.Policy)
	}
	c.span(at+".window", s.Window, time.Second, time.Hour)
	if s.Aggression < 0.1 || s.Aggression > 10 {
		c.fail(at+".aggression", "%g is out of bounds: write 0.1 to 10", s.Aggression)
	}
	c.between(at+".least", int64(s.Least), 1, 100)
}

func (c *check) locality(at string, b *Balancing) {
	l := b.Locality
	if l == nil {
		return
	}
	switch l.Mode {
	case "Prefer":
	case "Ignore", "Weighted":
		if l.SpillAt != 0 || len(l.Failover)+len(l.Labels) > 0 {
			c.fail(at, "spillAt, failover and labels mean nothing with mode %s: write mode: Prefer, or remove them", l.Mode)
		}
	default:
		c.fail(at+".mode", "%q is not a mode: write Prefer, Ignore or Weighted", l.Mode)
	}
	if (l.Mode == "Weighted") != (len(l.Weights) > 0) {
		c.fail(at+".weights", "and mode: Weighted belong together: write both, or none")
	}
	c.between(at+".spillAt", int64(l.SpillAt), 0, 1_000_000)
	if len(l.Failover) > maxFailover || len(l.Weights) > 64 {
		c.fail(at, "has %d entries of failover and %d weights: at most %d and 64", len(l.Failover), len(l.Weights), maxFailover)
	}
	seen := map[Failover]bool{}
	for i, f := range l.Failover {
		at := fmt.Sprintf("%s.failover[%d]", at, i)
		if f.From != "*" && !labelValue(f.From) || f.From == "" || f.To == "" || !labelValue(f.To) || f.From == f.To || seen[f] {
			c.fail(at, "from %q to %q: write two different regions (from may be \"*\"), each pair once", f.From, f.To)
		}
		seen[f] = true
	}
	for i, name := range l.Labels {
		if !qualified(name) || slices.Contains(l.Labels[:i], name) || i >= maxFailover {
			c.fail(fmt.Sprintf("%s.labels[%d]", at, i), "%q: write the name of a label, each once, at most %d", name, maxFailover)
		}
	}
	places := map[string]bool{}
	for i, w := range l.Weights {
		at := fmt.Sprintf("%s.weights[%d]", at, i)
		parts := strings.Split(w.Locality, "/")
		if len(parts) > 3 || slices.ContainsFunc(parts, func(p string) bool { return p == "" || !labelValue(p) }) || places[w.Locality] {
			c.fail(at+".locality", "%q is not a locality or is there twice: write region, region/zone or region/zone/sub-zone", w.Locality)
		}
		places[w.Locality] = true
		c.between(at+".weight", int64(w.Weight), 1, 1_000_000)
	}
}

func (c *check) hash(at string, keys []HashKey) {
	if keys != nil && (len(keys) == 0 || len(keys) > maxHash) {
		c.fail(at, "has %d entries: write 1 to %d, or leave it out", len(keys), maxHash)
	}
	for i, k := range keys {
		at := fmt.Sprintf("%s[%d]", at, i)
		kinds := 0
		for _, given := range []bool{k.Header != "", k.Cookie != nil, k.Query != "", k.Source, k.Path != ""} {
			if given {
				kinds++
			}
		}
		if kinds != 1 {
			c.fail(at, "names %d things: write one of header, cookie, query, source and path", kinds)
		}
		if k.Header != "" && !token(k.Header) {
			c.fail(at+".header", "%q is not the name of a header", k.Header)
		}
		if len(k.Query) > 256 {
			c.fail(at+".query", "has %d bytes: at most 256", len(k.Query))
		}
		if k.Path != "" && (len(k.Path) > 1024 || !pathTemplate(k.Path)) {
			c.fail(at+".path", "%q: write a path with one segment in braces, such as /users/{id}", k.Path)
		}
		if ck := k.Cookie; ck != nil {
			if !token(ck.Name) {
				c.fail(at+".cookie.name", "%q is not the name of a cookie", ck.Name)
			}
			c.span(at+".cookie.ttl", ck.TTL, 0, 365*24*time.Hour)
			if ck.Path != "" && (ck.TTL == "" || !cookiePath(ck.Path)) {
				c.fail(at+".cookie.path", "%q: write a path that begins with '/', and a ttl beside it", ck.Path)
			}
		}
	}
}

// pathTemplate reports whether t is a path with one segment that is "{name}", and none that is empty.
func pathTemplate(t string) bool {
	marked := 0
	for i, s := range strings.Split(t, "/") {
		switch name, found := strings.CutPrefix(s, "{"); {
		case i == 0 && s == "":
		case found && len(name) > 1 && only(strings.TrimSuffix(name, "}"), lower+upper+digits+"_-", lower+upper+digits, 63) && strings.HasSuffix(name, "}"):
			marked++
		case i == 0 || s == "" || !pathBytes(s):
			return false
		}
	}
	return marked == 1
}

func cookiePath(p string) bool {
	return strings.HasPrefix(p, "/") && len(p) <= 1024 && pathBytes(p) && !strings.ContainsAny(p, ";,")
}

func (c *check) fallback(at string, f *FallbackRef) {
	if f == nil {
		return
	}
	if !label(f.Name) {
		c.fail(at+".name", "%q is not the name of a Service", f.Name)
	}
	c.between(at+".port", int64(f.Port), 1, 65535)
}
