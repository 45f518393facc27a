package router

import (
	"regexp"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// change is a compiled change of a path.
type change struct {
	kind     model.PathChangeKind
	text     bool // with PathPrefixed: what follows the prefix is put behind with as it is
	with     string
	pattern  *regexp.Regexp
	template []byte // of package regexp
}

// AppendRewritten appends what the route's Rewrite makes of the path of a request that it matches (without query). It
// allocates for a Pattern alone.
func (r *Route) AppendRewritten(dst, path []byte) []byte { return r.rewrite.append(dst, path, r) }

// Rewrites reports whether there is anything to rewrite.
func (r *Route) Rewrites() bool { return r.rewrite.kind != model.PathKeep }

// AppendRedirected appends likewise what its Redirect makes of the path.
func (r *Route) AppendRedirected(dst, path []byte) []byte { return r.redirect.append(dst, path, r) }

func (r *Route) compileChanges() (err error) {
	w := &r.Route.Rewrite
	switch {
	case w.HasPrefix:
		r.rewrite = change{kind: model.PathPrefixed, with: w.Prefix, text: w.PrefixText}
	case w.Path != "":
		r.rewrite = change{kind: model.PathFull, with: w.Path}
	case w.Pattern != "":
		r.rewrite = change{kind: model.PathPattern, with: w.Replacement}
		if err = r.rewrite.compile(w.Pattern); err != nil {
			return err
		}
	}
	if d := r.Route.Redirect; d != nil {
		r.redirect = change{kind: d.Change, with: d.Path, text: d.AsEnvoy}
		if d.Change == model.PathPattern {
			err = r.redirect.compile(d.Pattern)
		}
	}
	return err
}

func (c *change) compile(expr string) (err error) {
	if c.pattern, err = regexp.Compile(expr); err == nil {
		c.template = []byte(template(c.with))
	}
	return err
}

// template makes a template of package regexp of one as RE2 has it: \1 is the first group, \0 all of the match, \\ is \.
func template(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$':
			b.WriteString("$$")
		case c == '\\' && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9':
			i++
			b.WriteString("${" + s[i:i+1] + "}")
		case c == '\\' && i+1 < len(s) && s[i+1] == '\\':
			i++
			b.WriteByte('\\')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// append appends what becomes of path; it begins with a slash.
func (c *change) append(dst, path []byte, r *Route) []byte {
	n := len(dst)
	switch c.kind {
	case model.PathFull:
		dst = append(dst, c.with...)
	case model.PathPrefixed:
		dst = c.prefixed(dst, path, r)
	case model.PathPattern:
		dst = append(dst, c.pattern.ReplaceAll(path, c.template)...)
	default:
		dst = append(dst, path...)
	}
	if len(dst) == n || dst[n] != '/' {
		dst = append(dst, 0)
		copy(dst[n+1:], dst[n:])
		dst[n] = '/'
	}
	return dst
}

// prefixed replaces the matched prefix; where no prefix was matched, that is all of the path. By whole elements it is as the
// table at Gateway API's HTTPPathModifier.replacePrefixMatch says: a slash at the end of either prefix has no meaning.
func (c *change) prefixed(dst, path []byte, r *Route) []byte {
	m := &r.Route.Match
	switch {
	case m.PathKind != model.PathPrefix || m.Connect:
		return append(dst, c.with...)
	case c.text:
		dst = append(dst, c.with...)
		return append(dst, path[min(len(m.Path), len(path)):]...)
	}
	dst = append(dst, trimSlashes(c.with)...)
	tail := path[min(len(r.prefix), len(path)):]
	if len(tail) > 0 && tail[0] != '/' { // a match by text
		dst = append(dst, '/')
	}
	return append(dst, tail...)
}
