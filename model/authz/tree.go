package authz

import (
	"regexp"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// key is the texts that a rule is filed under: one text, or, open, all that begin with it. A hole in it is one element of a
// path, of one character or more.
type key struct {
	text string
	open bool
}

// hole stands in a key for an element. A rule about a text with this character is not filed by it.
const hole = "\x00"

// tree finds the keys that a text fits, at a cost of the text's length.
type tree struct {
	label       string // of the way to here
	exact, open *index // the rules of the key that ends here; nil: none
	starts      string // the first characters of the labels of kids
	kids        []*tree
	element     *tree // below a hole
}

// add files rules under a key that is new.
func (t *tree) add(k key, x *index) {
	for i, part := range strings.Split(k.text, hole) {
		if i > 0 {
			if t.element == nil {
				t.element = &tree{}
			}
			t = t.element
		}
		t = t.down(part)
	}
	if k.open {
		t.open = x
	} else {
		t.exact = x
	}
}

// down answers where text leads to, made if it is not there.
func (t *tree) down(text string) *tree {
	for text != "" {
		i := strings.IndexByte(t.starts, text[0])
		if i < 0 {
			kid := &tree{label: text}
			t.starts, t.kids = t.starts+text[:1], append(t.kids, kid)
			return kid
		}
		kid, n := t.kids[i], 1
		for n < len(kid.label) && n < len(text) && kid.label[n] == text[n] {
			n++
		}
		if n < len(kid.label) {
			fork := &tree{label: kid.label[:n], starts: kid.label[n : n+1], kids: []*tree{kid}}
			kid.label = kid.label[n:]
			t.kids[i], kid = fork, fork
		}
		t, text = kid, text[n:]
	}
	return t
}

// each calls look with the rules of every key that s fits. Every place is come to once at most.
func each[T string | []byte](t *tree, s T, a *Attributes, look func([]*rule)) {
	for {
		if t.open != nil {
			t.open.each(a, look)
		}
		if len(s) == 0 {
			if t.exact != nil {
				t.exact.each(a, look)
			}
			return
		}
		if t.element != nil {
			n := 0
			for n < len(s) && s[n] != '/' {
				n++
			}
			if n > 0 {
				each(t.element, s[n:], a, look)
			}
		}
		i := strings.IndexByte(t.starts, s[0])
		if i < 0 {
			return
		}
		t = t.kids[i]
		n := len(t.label)
		if len(s) < n || string(s[:n]) != t.label {
			return
		}
		s = s[n:]
	}
}

// keys answers the keys that an attribute fits one of wherever e's alternatives hold, e.room at most; none: not known.
func (e *entry) keys(at attribute) []key {
	k := keys{room: e.room, back: at.back}
	switch {
	case at.dimension == byField:
		for i := range e.when {
			if w := &e.when[i]; w.kind == at.kind && w.name == at.name && len(w.values.is) > 0 {
				k.texts(w.values.is)
				break // all have to hold, so one is enough
			}
		}
	case at.dimension < byPath:
		for i := range e.from {
			k.source(&e.from[i], at.dimension)
		}
	default:
		for i := range e.to {
			k.target(&e.to[i], at.dimension)
		}
	}
	if k.unknown {
		return nil
	}
	return k.list
}

// keys gathers those of alternatives; one that is not known makes all unknown.
type keys struct {
	list    []key
	room    int
	back    bool // from the end
	unknown bool
}

func (k *keys) source(s *source, d dimension) {
	switch d {
	case byIP:
		k.prefixes(&s.ips)
	case byRemote:
		k.prefixes(&s.remotes)
	default:
		k.texts([...]*texts{byPrincipal: &s.principals, byAccount: &s.accounts, byNamespace: &s.namespaces, byDomain: &s.domains, byToken: &s.tokens}[d].is)
	}
}

func (k *keys) target(t *target, d dimension) {
	switch d {
	case byPath:
		k.paths(t.paths.is)
	case byHost:
		k.texts(t.hosts.is)
	case byProcedure:
		k.texts(t.procedures.is)
	case byServerName:
		k.texts(t.names.is)
	case byMethod:
		k.texts(t.methods.is)
	case byPort:
		k.some(len(t.ports.is))
		for _, n := range t.ports.is {
			k.add(string(port16(nil, n)), false)
		}
	}
}

func (k *keys) some(n int) { k.unknown = k.unknown || n == 0 }

// ends: what has no suffix is filed from its beginning.
func (k *keys) ends(suffix bool) { k.unknown = k.unknown || k.back && !suffix }

func (k *keys) add(text string, open bool) {
	one := key{text, open}
	switch {
	case k.unknown || slices.Contains(k.list, one):
	case len(k.list) == k.room:
		k.unknown = true
	default:
		k.list = append(k.list, one)
	}
}

func (k *keys) texts(list []text) {
	k.some(len(list))
	k.ends(slices.ContainsFunc(list, func(t text) bool { return t.Kind == model.StringSuffix }))
	for i := 0; i < len(list) && !k.unknown; i++ {
		k.text(&list[i])
	}
}

func (k *keys) text(t *text) {
	switch {
	case t.IgnoreCase || strings.Contains(t.Value, hole) || strings.Contains(t.begins, hole):
		k.unknown = true
	case k.back && t.Value != "" && (t.Kind == model.StringExact || t.Kind == model.StringSuffix):
		k.add(string(backwards(nil, t.Value)), true)
	case k.back:
		k.unknown = true
	case t.Kind == model.StringExact:
		k.add(t.begins, false)
	case t.begins != "":
		k.add(t.begins, true)
	default:
		k.unknown = true
	}
}

func (k *keys) paths(list []path) {
	k.some(len(list))
	k.ends(slices.ContainsFunc(list, func(p path) bool { return p.Kind == model.StringSuffix }))
	for i := 0; i < len(list) && !k.unknown; i++ {
		if t := list[i].template; t != nil && !k.back {
			k.template(t)
		} else if t != nil {
			k.unknown = true
		} else {
			k.text(&list[i].text)
		}
	}
}

func (k *keys) template(parts []string) {
	var b strings.Builder
	for i, p := range parts {
		switch {
		case strings.Contains(p, hole):
			k.unknown = true
		case p == "{...}":
			if i > 0 {
				k.add(b.String(), false) // "/files" fits "/files/{rest...}"
			}
			k.add(b.String()+"/", true)
			return
		case p == "{}":
			b.WriteString("/" + hole)
		default:
			b.WriteString("/" + p)
		}
	}
	k.add(b.String(), false)
}

func (k *keys) prefixes(p *prefixes) {
	k.some(len(p.is))
	for _, one := range p.is {
		k.add(string(address(nil, one.Addr())[:1+one.Bits()]), true)
	}
}

// beginning answers a text that everything begins with that m fits.
func beginning(m model.StringMatch) string {
	switch m.Kind {
	case model.StringExact, model.StringPrefix:
		return m.Value
	case model.StringRegex:
		// Asked of the expression as it stands, which has to be one: what it fits as a whole begins as what it finds.
		if re, err := regexp.Compile("(?s)" + m.Value); err == nil && !m.IgnoreCase {
			literal, _ := re.LiteralPrefix()
			return literal
		}
	}
	return ""
}
