package authz

import (
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// index finds the rules that may hold without looking at all: each rule is filed under the values that one of its
// dimensions can have, the dimension whose values are rarest among all rules. What has none is looked at always.
type index struct {
	filed [dimensions]map[string][]*rule // by order
	rest  []*rule
}

// dimension is an attribute that rules are filed by.
type dimension uint8

const (
	byPrincipal dimension = iota
	byAccount
	byNamespace
	byPath
	byFirst // element of the path
	byHost
	byProcedure
	byServerName
	byMethod
	dimensions
)

func (d dimension) of(a *Attributes) string {
	switch d {
	case byPrincipal:
		return a.Principal
	case byAccount:
		return a.Account
	case byNamespace:
		return a.Namespace
	case byPath:
		return a.Path
	case byFirst:
		return first(a.Path)
	case byHost:
		return a.Host
	case byProcedure:
		return a.Procedure
	case byServerName:
		return a.ServerName
	}
	return a.Method
}

// first answers "/a" of "/a", "/a/" and "/a/b".
func first(path string) string {
	if path == "" {
		return ""
	}
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		return path[:i+1]
	}
	return path
}

// maxKeys is how many values a rule is filed under at most.
const maxKeys = 64

// keys answers every value of d for which r can hold; false: not known.
func (r *rule) keys(d dimension) (out []string, ok bool) {
	add := func(t []text) bool {
		for i := range t {
			if t[i].Kind != model.StringExact || t[i].IgnoreCase {
				return false
			}
			out = append(out, t[i].Value)
		}
		return len(t) > 0 && len(out) <= maxKeys
	}
	if d <= byNamespace {
		for i := range r.from {
			if s := &r.from[i]; !add([][]text{s.principals.is, s.accounts.is, s.namespaces.is}[d]) {
				return nil, false
			}
		}
		return out, len(r.from) > 0
	}
	for i := range r.to {
		t := &r.to[i]
		ok := false
		switch d {
		case byPath, byFirst:
			ok = t.paths.keys(d, &out)
		case byHost:
			ok = add(t.hosts.is)
		case byProcedure:
			ok = add(t.procedures.is)
		case byServerName:
			ok = add(t.names.is)
		case byMethod:
			ok = add(t.methods.is)
		}
		if !ok {
			return nil, false
		}
	}
	return out, len(r.to) > 0
}

// keys adds the values of the path, or of its first element, for which some path of is fits.
func (p *paths) keys(d dimension, out *[]string) bool {
	for i := range p.is {
		q := &p.is[i]
		key := ""
		switch {
		case q.template != nil:
			if d == byPath || strings.HasPrefix(q.template[0], "{") {
				return false
			}
			key = "/" + q.template[0]
		case q.IgnoreCase || q.Value == "" || q.Value[0] != '/':
			return false
		case q.Kind == model.StringExact && d == byPath:
			key = q.Value
		case q.Kind == model.StringExact || q.Kind == model.StringPrefix && d == byFirst && strings.IndexByte(q.Value[1:], '/') >= 0:
			key = first(q.Value)
		default:
			return false
		}
		*out = append(*out, key)
	}
	return len(p.is) > 0 && len(*out) <= maxKeys
}

// newIndex files rules, which are in order.
func newIndex(rules []*rule) (ix index) {
	var often [dimensions]map[string]int
	for d := range often {
		often[d] = map[string]int{}
		for _, r := range rules {
			list, _ := r.keys(dimension(d))
			for _, k := range list {
				often[d][k]++
			}
		}
	}
	for _, r := range rules {
		best, at, keys := len(rules)+1, dimensions, []string(nil)
		for d := range dimensions {
			list, ok := r.keys(d)
			if !ok {
				continue
			}
			most := 0
			for _, k := range list {
				most = max(most, often[d][k])
			}
			if most < best {
				best, at, keys = most, d, list
			}
		}
		if at == dimensions {
			ix.rest = append(ix.rest, r)
			continue
		}
		if ix.filed[at] == nil {
			ix.filed[at] = map[string][]*rule{}
		}
		slices.Sort(keys)
		for _, k := range slices.Compact(keys) {
			ix.filed[at][k] = append(ix.filed[at][k], r)
		}
	}
	return ix
}

func (ix *index) empty() bool {
	for _, m := range ix.filed {
		if len(m) > 0 {
			return false
		}
	}
	return len(ix.rest) == 0
}

// first answers the first rule, in their order, that holds.
func (ix *index) first(a *Attributes) (found *rule) {
	for _, r := range ix.rest {
		if r.holds(a) {
			found = r
			break
		}
	}
	for d, m := range ix.filed {
		if m == nil {
			continue
		}
		for _, r := range m[dimension(d).of(a)] {
			if found != nil && r.order > found.order {
				break
			}
			if r.holds(a) {
				found = r
				break
			}
		}
	}
	return found
}
