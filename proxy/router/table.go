// Package router decides which route a request takes. Compile turns a model.RouteTable into a Table once;
// Find then answers the first route that holds, in the table's order (of the virtual host that the authority
// selects, where there are hosts), without allocating. A Table is immutable and safe for concurrent use; explain and
// the route tests run this very code. Pure. Start reading at Find.
package router

import (
	"fmt"
	"regexp"
	"sort"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Table is a compiled model.RouteTable.
type Table struct {
	Model  *model.RouteTable
	Routes []Route // as in Model, in order
	Hosts  []Host  // likewise

	hosts   domains
	classes []classRule
}

// Host is one compiled virtual host.
type Host struct {
	*model.VirtualHost
	Routes []Route
}

// Route is one compiled route.
type Route struct {
	*model.Route
	Table model.PortName     // whose it is
	Index int                // in Table.Routes, or in those of Host
	Host  *model.VirtualHost // nil: the table has none

	path    *regexp.Regexp // PathRegex only
	headers []field
	query   []field
	prefix  string   // PathPrefix without its trailing slash
	sums    []uint64 // running sums of the backends' weights

	Inject            *Fault           // the compiled Fault; nil: none
	names             []uint64         // of the backends (sticky.go)
	rewrite, redirect change           // of the path
	origins           []*regexp.Regexp // of CORS; nil: by text
}

// Compile makes a Table of t, which must not be changed afterwards. It fails when a regular expression is not
// RE2 or a backend list weighs nothing; the error names the route and rule.
func Compile(t *model.RouteTable) (*Table, error) {
	c := &Table{Model: t, Hosts: make([]Host, len(t.Hosts))}
	var err error
	if c.Routes, err = compileAll(t, t.Routes, nil); err != nil {
		return nil, err
	}
	for i := range t.Hosts {
		h := &c.Hosts[i]
		h.VirtualHost = &t.Hosts[i]
		if h.Routes, err = compileAll(t, h.VirtualHost.Routes, h.VirtualHost); err != nil {
			return nil, err
		}
	}
	if c.classes, err = compileClasses(t.Classes); err != nil {
		return nil, fmt.Errorf("route table %s: %w", t.Name, err)
	}
	if err := c.hosts.compile(c.Hosts); err != nil {
		return nil, fmt.Errorf("route table %s: %w", t.Name, err)
	}
	return c, nil
}

func compileAll(t *model.RouteTable, in []model.Route, host *model.VirtualHost) ([]Route, error) {
	out := make([]Route, len(in))
	for i := range in {
		if err := out[i].compile(&in[i], i); err != nil {
			return nil, fmt.Errorf("route table %s: route %s, rule %d: %w", t.Name, in[i].Name, in[i].Rule, err)
		}
		out[i].Table, out[i].Host = t.Name, host
	}
	return out, nil
}

func (r *Route) compile(m *model.Route, index int) (err error) {
	r.Route, r.Index = m, index
	switch m.Match.PathKind {
	case model.PathRegex:
		expr := m.Match.Path
		if m.Match.IgnoreCase {
			expr = ignoreCase + expr
		}
		if r.path, err = anchored(expr); err != nil {
			return err
		}
	case model.PathPrefix:
		if r.prefix = m.Match.Path; !m.Match.PathPrefixText {
			r.prefix = trimSlashes(m.Match.Path)
		}
	}
	if r.headers, err = compileFields(m.Match.Headers, true); err != nil {
		return err
	}
	if r.query, err = compileFields(m.Match.Query, false); err != nil {
		return err
	}
	var sum uint64
	for i := range m.Backends {
		sum += uint64(m.Backends[i].Weight)
		r.sums = append(r.sums, sum)
	}
	if len(m.Backends) > 0 && sum == 0 {
		return fmt.Errorf("the weights of its %d backends add up to 0; leave the list empty instead", len(m.Backends))
	}
	return r.compileActions()
}

// anchored compiles an RE2 expression that has to match the whole of its input.
func anchored(expr string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(expr); err != nil { // alone first: `a)(b` must not pass by our parentheses
		return nil, err
	}
	return regexp.Compile(`\A(?:` + expr + `)\z`)
}

// Match is Find for a request that is among every Fraction.
func (t *Table) Match(h *message.Head) *Route { return t.Find(h, 0) }

// Find answers the first route that h matches, nil if there is none; rnd, uniform over uint32, decides whether the
// request is among a Fraction. It allocates nothing.
func (t *Table) Find(h *message.Head, rnd uint32) *Route {
	routes, connect := t.Routes, false
	if len(t.Hosts) > 0 {
		host := t.hosts.find(h.Authority, t.Model.IgnorePort)
		if host == nil {
			return nil
		}
		// A foreign table means it when it speaks of paths: CONNECT has none (but in its extended form).
		routes, connect = host.Routes, string(h.Method) == "CONNECT" && h.Upgrade == nil
	}
	path, query := splitTarget(h.Target)
	for i := range routes {
		r := &routes[i]
		if connect && !r.Route.Match.Connect {
			continue
		}
		if r.matches(h, path, query, rnd) {
			return r
		}
	}
	return nil
}

// Choose answers the backend for a random number that is uniform over all of uint32, nil if the route has
// none. Backend i is answered with probability weight i / sum of weights, to within 2^-32 per backend.
func (r *Route) Choose(rnd uint32) *model.Backend {
	n := len(r.sums)
	if n == 0 {
		return nil
	}
	if n == 1 {
		return &r.Backends[0]
	}
	at := scale(rnd, r.sums[n-1])
	i := sort.Search(n, func(i int) bool { return r.sums[i] > at })
	return &r.Backends[i]
}
