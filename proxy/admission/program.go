package admission

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/internal/rate"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// program is Terms made ready. Immutable; what changes is in the states that its rules point to.
type program struct {
	terms       Terms
	idle        bool // admits everything
	find        bool // the request's route is looked for in the table
	connections uint32
	requests    int // at work at once; 0: no bound
	connecting  *rule
	all         []*rule                  // that every request meets
	routes      map[*model.Route][]*rule // that those of a route meet besides; nil: none
	adaptive    *model.Adaptive          // nil: not
	fair        bool                     // requests may wait for a turn, and tenants have turns alike
	tenant      []model.RateKey          // whose turn it is
	weights     map[uint64]uint32        // of tenants, by hash; nil: all have 1
	states      map[string]*state        // of all rules
	classes     bool
}

// state is what a rule keeps from one program to the next.
type state struct {
	one      bucket
	many     *buckets // nil: without keys
	refused  atomic.Uint64
	shadowed atomic.Uint64
}

// rule is one limit.
type rule struct {
	*model.RateLimit
	match  *router.Table // nil: every request
	rate   rate.Rate
	state  *state
	ask    *model.GlobalLimit      // whom to ask instead
	policy string                  // of RateLimit-Policy
	item   string                  // how the limit begins in RateLimit
	names  []model.DescriptorEntry // what the control plane is told: which limit, and how much
}

// note counts a refusal.
func (r *rule) note() {
	if r.Shadow {
		r.state.shadowed.Add(1)
	} else {
		r.state.refused.Add(1)
	}
}

// compile makes a program; states are taken over from the one before.
func compile(g *Gate, t Terms, before *program) (*program, error) {
	p := &program{terms: t, states: map[string]*state{}}
	c := compiler{g: g, p: p, before: before}
	in := t.Inbound
	if !t.Routed && t.Table != nil && t.Table.Model.Inbound != nil {
		in = t.Table.Model.Inbound
	}
	if in != nil {
		p.connections, p.requests, p.adaptive = in.MaxConnections, int(in.MaxRequests), in.Adaptive
		if in.ConnectionRate != nil {
			p.connecting = c.rule("connections", in.ConnectionRate)
		}
		p.all = c.rules("", in.Limits)
	}
	if t.Table != nil {
		p.classes = !t.Routed && len(t.Table.Model.Classes) > 0
		c.routes(t.Table.Routes)
		for i := range t.Table.Hosts {
			c.routes(t.Table.Hosts[i].Routes)
		}
		p.find = !t.Routed && p.routes != nil
	}
	for _, own := range p.routes {
		c.bound(len(own) + len(p.all))
	}
	c.bound(len(p.all))
	if c.err != nil {
		return nil, c.err
	}
	if p.adaptive != nil {
		g.slots.configure(p.adaptive, g)
		if p.adaptive.Queue > 0 {
			p.share(g)
		}
	}
	p.idle = p.requests == 0 && p.adaptive == nil && len(p.all) == 0 && p.routes == nil
	return p, nil
}

type compiler struct {
	g         *Gate
	p, before *program
	err       error
}

func (c *compiler) routes(all []router.Route) {
	for i := range all {
		if r := &all[i]; len(r.Limits) > 0 {
			if c.p.routes == nil {
				c.p.routes = map[*model.Route][]*rule{}
			}
			c.p.routes[r.Route] = c.rules(fmt.Sprintf("%s/%d", r.Name, r.Rule), r.Limits)
		}
	}
}

// maxRules is how many limits a request may meet.
const maxRules = 256

func (c *compiler) bound(n int) {
	if n > maxRules && c.err == nil {
		c.err = fmt.Errorf("%d rate limits for one request: at most %d", n, maxRules)
	}
}

func (c *compiler) rules(scope string, all []model.RateLimit) (out []*rule) {
	for i := range all {
		if g := all[i].Global; g != nil && *g == (model.GlobalLimit{}) && c.p.terms.Routed && c.p.terms.Global == nil {
			continue // nobody is to be asked
		}
		out = append(out, c.rule(scope, &all[i]))
	}
	return out
}

// rule makes a rule. Two limits of one scope and name share what they count only if they are one.
func (c *compiler) rule(scope string, m *model.RateLimit) *rule {
	r := &rule{RateLimit: m}
	if m.Match != nil {
		t, err := router.Compile(&model.RouteTable{Routes: []model.Route{{Name: m.Name, Match: *m.Match}}})
		if err != nil && c.err == nil {
			c.err = fmt.Errorf("rate limit %s: %w", m.Name, err)
		}
		r.match = t
	}
	if m.Global != nil {
		r.ask = m.Global
		if *m.Global == (model.GlobalLimit{}) && c.p.terms.Global != nil {
			r.ask = c.p.terms.Global
		}
	}
	if r.rate = rate.New(m.Requests, m.Window, m.Burst); m.Bytes {
		r.rate = rate.NewBandwidth(m.Requests, m.Window, m.Burst)
	}
	r.policy, r.item = policyOf(m.Name, m.Requests, r.rate.Window(), m.Bytes), string(appendString(nil, m.Name))+";r="
	if m.Scope != "" {
		scope = "scope\x01" + m.Scope
	}
	if r.ask != nil && r.ask.Cluster == (model.PortName{}) {
		table := ""
		if c.p.terms.Table != nil {
			table = c.p.terms.Table.Model.Name.String()
		}
		r.names = []model.DescriptorEntry{{Key: model.LimitKey, Value: table + "/" + scope + "/" + m.Name}, {Key: model.RateKeyOfLimit, Value: model.FormatRate(m.Requests, r.rate.Window(), m.Burst)}}
	}
	name := fmt.Sprintf("%s\x00%s\x00%v", scope, m.Name, m.By)
	if s := c.p.states[name]; s != nil && m.Scope != "" {
		r.state = s
		return r
	}
	for n := 1; c.p.states[name] != nil; n++ {
		name = fmt.Sprintf("%s\x00%d", name, n)
	}
	if r.state = c.before.states[name]; r.state == nil {
		if r.state = (&state{}); len(m.By) > 0 {
			r.state.many = &buckets{}
		}
	}
	c.p.states[name] = r.state
	return r
}

// Question is what is asked about a request.
type Question struct {
	Head    *message.Head
	Route   *router.Route // that it took, with Terms.Routed; nil: none
	Caller  model.ServiceName
	Address netip.Addr // of the caller
	Cluster model.PortName
	Class   model.Class // with Said: what a proxy before this one has said
	Said    bool
	Random  uint32 // for shares of requests
}

// rulesFor answers the limits that a request of a route meets besides those that all meet.
func (p *program) rulesFor(q *Question) []*rule {
	if p.routes == nil {
		return nil
	}
	r := q.Route
	if p.find {
		r = p.terms.Table.Find(q.Head, q.Random)
	}
	if r == nil {
		return nil
	}
	return p.routes[r.Route]
}

// holds reports whether a request is one of those that the rule is for.
func (r *rule) holds(q *Question) bool {
	return r.match == nil || r.match.Find(q.Head, q.Random) != nil
}

// bucketOf answers the bucket that a request takes from.
func (g *Gate) bucketOf(r *rule, q *Question) *bucket {
	if len(r.By) == 0 {
		return &r.state.one
	}
	return r.state.many.find(g.hash(r.By, q))
}

// hash answers one of what tells a request apart. Each part is hashed with the gate's seed, which nobody knows, and mixed
// with those before it; a maphash.Hash would copy all of them into its buffer first, for every request.
func (g *Gate) hash(by []model.RateKey, q *Question) uint64 {
	h := uint64(0)
	for i := range by {
		k := &by[i]
		h = mix(h, uint64(k.Kind))
		switch k.Kind {
		case model.RateByCaller:
			h = mix(mix(h, maphash.String(g.seed, q.Caller.Namespace)), maphash.String(g.seed, q.Caller.Name))
		case model.RateByAddress:
			a := q.Address.As16()
			h = mix(h, maphash.Bytes(g.seed, a[:]))
		case model.RateByHeader:
			h = mix(h, maphash.Bytes(g.seed, fieldOf(q.Head, k.Name)))
		case model.RateByPath:
			h = mix(h, maphash.Bytes(g.seed, pathOf(q.Head)))
		case model.RateByMethod:
			h = mix(h, maphash.Bytes(g.seed, q.Head.Method))
		}
	}
	return h
}

// mix takes the next part of several into a hash; their order counts.
func mix(h, part uint64) uint64 {
	high, low := bits.Mul64(h^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return bits.RotateLeft64(high^low, 27) ^ part
}

// byCaller is who has turns where nobody says otherwise: whom the proxy has proof of.
var byCaller = []model.RateKey{{Kind: model.RateByCaller}}

// share makes ready whose turn it is among those who wait.
func (p *program) share(g *Gate) {
	p.fair, p.tenant = true, byCaller
	f := p.adaptive.Fair
	if f == nil {
		return
	}
	if len(f.By) > 0 {
		p.tenant = f.By
	}
	for _, w := range f.Weights {
		if p.weights == nil {
			p.weights = map[uint64]uint32{}
		}
		q := Question{Head: &message.Head{}}
		q.Caller.Name, q.Caller.Namespace, _ = strings.Cut(w.Tenant, ".")
		if k := p.tenant[0]; k.Kind == model.RateByHeader {
			q.Head.Add([]byte(k.Name), []byte(w.Tenant))
		}
		p.weights[g.hash(p.tenant, &q)] = w.Weight
	}
}

// weight answers that of a tenant.
func (p *program) weight(hash uint64) uint32 {
	if w, ok := p.weights[hash]; ok {
		return w
	}
	return 1
}

// fieldOf answers the value of a field, or pseudo-field, of a request.
func fieldOf(h *message.Head, name string) []byte {
	switch name {
	case ":path":
		return h.Target
	case ":method":
		return h.Method
	case ":authority", "host":
		return h.Authority
	case ":scheme":
		return h.Scheme
	}
	return h.Get(name)
}

// pathOf answers the path without its query.
func pathOf(h *message.Head) []byte {
	for i, c := range h.Target {
		if c == '?' {
			return h.Target[:i]
		}
	}
	return h.Target
}

// class answers the class of a request, and whether it is anybody's word: what the first proxy said, else what the table says.
func (p *program) class(q *Question) (c model.Class, said bool) {
	if !q.Said && p.classes {
		return p.terms.Table.Class(q.Head, q.Caller, q.Random)
	}
	return q.Class, q.Said
}
