// Package router decides which route a request takes. Compile turns a model.RouteTable into a Table once;
// Match then answers the first route that holds, in the table's order, without allocating. A Table is
// immutable and safe for concurrent use; explain and the route tests run this very code. Pure. Start reading
// at Match.
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
}

// Route is one compiled route.
type Route struct {
	*model.Route
	Index int // in Table.Routes

	path    *regexp.Regexp // PathRegex only
	headers []field
	query   []field
	prefix  string   // PathPrefix without its trailing slash
	sums    []uint64 // running sums of the backends' weights
}

// field is one compiled model.FieldMatch.
type field struct {
	name  string // headers: in lower case
	value string
	regex *regexp.Regexp // nil: exact
}

// Compile makes a Table of t, which must not be changed afterwards. It fails when a regular expression is not
// RE2 or a backend list weighs nothing; the error names the route and rule.
func Compile(t *model.RouteTable) (*Table, error) {
	c := &Table{Model: t, Routes: make([]Route, len(t.Routes))}
	for i := range t.Routes {
		if err := c.Routes[i].compile(&t.Routes[i], i); err != nil {
			return nil, fmt.Errorf("route table %s: route %s, rule %d: %w", t.Name, t.Routes[i].Name, t.Routes[i].Rule, err)
		}
	}
	return c, nil
}

func (r *Route) compile(m *model.Route, index int) (err error) {
	r.Route, r.Index = m, index
	switch m.Match.PathKind {
	case model.PathRegex:
		if r.path, err = anchored(m.Match.Path); err != nil {
			return err
		}
	case model.PathPrefix:
		r.prefix = trimSlashes(m.Match.Path)
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
	return nil
}

func compileFields(in []model.FieldMatch, lower bool) ([]field, error) {
	out := make([]field, len(in))
	for i, f := range in {
		out[i] = field{name: f.Name, value: f.Value}
		if lower {
			out[i].name = lowerASCII(f.Name)
		}
		if f.Regex {
			re, err := anchored(f.Value)
			if err != nil {
				return nil, err
			}
			out[i].regex = re
		}
	}
	return out, nil
}

// anchored compiles an RE2 expression that has to match the whole of its input.
func anchored(expr string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(expr); err != nil { // alone first: `a)(b` must not pass by our parentheses
		return nil, err
	}
	return regexp.Compile(`\A(?:` + expr + `)\z`)
}

// Match answers the first route that h matches, nil if there is none. It allocates nothing.
func (t *Table) Match(h *message.Head) *Route {
	path, query := splitTarget(h.Target)
	for i := range t.Routes {
		if r := &t.Routes[i]; r.matches(h, path, query) {
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
