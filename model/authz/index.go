package authz

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/tulle-mesh/tulle/model"
)

// index finds the rules that may hold without looking at the others: every alternative of a rule is filed under the values that
// one of its attributes can have, the attribute whose values are rarest; where many are filed below one value, they are filed
// again by another attribute. It answers too many rules, never too few: what it answers is held against the request as a whole.
type index struct {
	by   []branch
	rest []*rule // looked at always, in order
}

// branch is the rules that are filed by one attribute.
type branch struct {
	attribute
	tree tree
}

// attribute is what rules are filed by.
type attribute struct {
	dimension
	back bool                // from its end
	kind model.ConditionKind // byField
	name string
}

type dimension uint8

const (
	byPrincipal dimension = iota
	byAccount
	byNamespace
	byDomain
	byToken
	byIP
	byRemote
	byPath
	byHost
	byProcedure
	byServerName
	byMethod
	byPort
	byField // the value of a condition
)

func (d dimension) of(a *Attributes) string {
	switch d {
	case byPrincipal:
		return a.Principal
	case byAccount:
		return a.Account
	case byNamespace:
		return a.Namespace
	case byDomain:
		return a.TrustDomain
	case byToken:
		return a.Token
	case byPath:
		return a.Path
	case byHost:
		return a.Host
	case byProcedure:
		return a.Procedure
	case byServerName:
		return a.ServerName
	}
	return a.Method
}

const (
	// maxKeys is how often a rule is filed at most, all attributes together: what an index takes grows as the rules do.
	maxKeys = 128
	// maxFields is by how many values of conditions the rules of one place are filed at most: each has to be asked for.
	maxFields = 4
	// few rules are not worth being filed.
	few = 4
	// maxEnd is how many characters from its end an attribute is compared by.
	maxEnd = 128
)

// entry is a rule that is to be filed for some of its alternatives, under so many keys at most.
type entry struct {
	*rule
	from []source
	to   []target
	room int
}

// newIndex files rules, which are in order.
func newIndex(rules []*rule) *index {
	var list []entry
	for _, r := range rules {
		list = append(list, r.entries()...)
	}
	return file(list, nil)
}

// entries answers an entry for each alternative of a rule, if they are not too many to be filed by themselves.
func (r *rule) entries() (out []entry) {
	from, to := [][]source{r.from}, [][]target{r.to}
	if n := len(r.from); n > 1 && n <= maxKeys/4 {
		from = slices.Collect(slices.Chunk(r.from, 1))
	}
	if n := len(r.to); n > 1 && n*len(from) <= maxKeys/4 {
		to = slices.Collect(slices.Chunk(r.to, 1))
	}
	for _, f := range from {
		for _, t := range to {
			out = append(out, entry{r, f, t, maxKeys / len(from) / len(to)})
		}
	}
	return out
}

// list answers the rules of entries.
func list(entries []entry) (out []*rule) {
	for _, e := range entries {
		out = append(out, e.rule)
	}
	return slices.Compact(out)
}

// file makes an index by other attributes than those.
func file(rules []entry, used []attribute) *index {
	if len(rules) <= few {
		return &index{rest: list(rules)}
	}
	by := attributes(rules, used)
	keys := make([][][]key, len(by)) // by attribute and rule
	often := make([]map[key]int, len(by))
	filed := make([]map[key][]entry, len(by))
	for i, at := range by {
		keys[i] = make([][]key, len(rules))
		for k, e := range rules {
			keys[i][k] = e.keys(at)
			if len(keys[i][k]) > 0 && often[i] == nil {
				often[i] = map[key]int{}
			}
			for _, one := range keys[i][k] {
				often[i][one]++
			}
		}
	}
	var rest []entry
	for k, e := range rules {
		best, least := -1, len(rules)+1
		for i := range by {
			most, rarest := 0, len(rules)
			for _, one := range keys[i][k] {
				most, rarest = max(most, often[i][one]), min(rarest, often[i][one])
			}
			if most > 0 && most < least && (rarest < len(rules) || len(used) == 0) {
				best, least = i, most
			}
		}
		if best < 0 {
			rest = append(rest, e)
			continue
		}
		under := keys[best][k]
		e.room /= len(under)
		if filed[best] == nil {
			filed[best] = map[key][]entry{}
		}
		for _, one := range under {
			filed[best][one] = append(filed[best][one], e)
		}
	}
	x := &index{rest: list(rest)}
	for i, at := range by {
		if len(filed[i]) == 0 {
			continue
		}
		b := branch{attribute: at}
		for one, rules := range filed[i] {
			b.tree.add(one, file(rules, append(slices.Clip(used), at)))
		}
		x.by = append(x.by, b)
	}
	return x
}

// attributes answers what rules can be filed by: first what costs least to look up.
func attributes(rules []entry, used []attribute) (out []attribute) {
	for d := range byField {
		if at := (attribute{dimension: d}); !slices.Contains(used, at) {
			out = append(out, at)
		}
	}
	for d := range byMethod {
		if at := (attribute{dimension: d, back: true}); d != byIP && d != byRemote && !slices.Contains(used, at) {
			out = append(out, at)
		}
	}
	var fields []attribute
	often := map[attribute]int{}
	for _, e := range rules {
		for i := range e.when {
			at := attribute{dimension: byField, kind: e.when[i].kind, name: e.when[i].name}
			if slices.Contains(used, at) {
				continue
			}
			if often[at]++; often[at] == 1 {
				fields = append(fields, at)
			}
		}
	}
	slices.SortStableFunc(fields, func(a, b attribute) int { return often[b] - often[a] })
	return append(out, fields[:min(len(fields), maxFields)]...)
}

// each calls look with lists, each in order, in which every rule is that may hold; one may come more than once.
func (x *index) each(a *Attributes, look func([]*rule)) {
	for i := range x.by {
		x.by[i].each(a, look)
	}
	if len(x.rest) > 0 {
		look(x.rest)
	}
}

func (b *branch) each(a *Attributes, look func([]*rule)) {
	var buf [129]byte
	switch b.dimension {
	case byIP, byRemote:
		ip := a.IP
		if b.dimension == byRemote {
			ip = a.RemoteIP
		}
		if ip.IsValid() {
			each(&b.tree, address(buf[:0], ip.Unmap()), a, look)
		}
	case byPort:
		each(&b.tree, port16(buf[:0], a.Port), a, look)
	case byField:
		for i := 0; a.Fields != nil; i++ {
			v, ok := a.Fields.Value(b.kind, b.name, i)
			if !ok {
				return
			}
			each(&b.tree, v, a, look)
		}
	default:
		if b.back {
			each(&b.tree, backwards(buf[:0], b.of(a)), a, look)
		} else {
			each(&b.tree, b.of(a), a, look)
		}
	}
}

// backwards writes the end of a text, from the last character on.
func backwards(to []byte, s string) []byte {
	for i := len(s) - 1; i >= max(0, len(s)-maxEnd); i-- {
		to = append(to, s[i])
	}
	return to
}

// address writes an address as a text of which its prefixes are beginnings: the family, and a digit for each bit.
func address(to []byte, a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return digits(append(to, '4'), b[:])
	}
	b := a.As16()
	return digits(append(to, '6'), b[:])
}

func port16(to []byte, n uint16) []byte {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return digits(to, b[:])
}

func digits(to, bytes []byte) []byte {
	for _, b := range bytes {
		for i := 7; i >= 0; i-- {
			to = append(to, '0'+b>>i&1)
		}
	}
	return to
}

func (x *index) empty() bool { return len(x.by) == 0 && len(x.rest) == 0 }

// first answers the first rule, in their order, that holds.
func (x *index) first(a *Attributes) (found *rule) {
	x.each(a, func(list []*rule) {
		for _, r := range list {
			if found != nil && r.order >= found.order {
				return
			}
			if r.holds(a) {
				found = r
				return
			}
		}
	})
	return found
}
