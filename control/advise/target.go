package advise

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
)

func said(r *authz.Rule) struct{ a, b string } {
	if r == nil {
		return struct{ a, b string }{}
	}
	return struct{ a, b string }{r.Policy, r.Name}
}

// connections answers the ports that a caller has connected to.
func (b *builder) connections(entries []*decisions.Entry) []v1alpha1.AuthorizationTarget {
	var ports []uint16
	for _, e := range entries {
		ports = append(ports, e.Port)
	}
	return []v1alpha1.AuthorizationTarget{{Ports: numbers(ports)}}
}

func numbers(ports []uint16) (out []string) {
	slices.Sort(ports)
	for _, p := range slices.Compact(ports) {
		out = append(out, strconv.Itoa(int(p)))
	}
	return out
}

// asked is one path, and how it was asked for.
type asked struct {
	path           string
	template, grpc bool
	methods        []string
	hosts          []string
}

// requests answers what a caller has asked for: paths that were asked for in the same ways are put together.
func (b *builder) requests(entries []*decisions.Entry) (out []v1alpha1.AuthorizationTarget) {
	// By port first: what is asked for on one is not allowed on the other.
	ports := map[string][]uint16{}
	lists := map[string][]v1alpha1.AuthorizationTarget{}
	byPort := map[uint16][]*decisions.Entry{}
	for _, e := range entries {
		byPort[e.Port] = append(byPort[e.Port], e)
	}
	for port, of := range byPort {
		list := b.onPort(of)
		key := fmt.Sprintf("%q", list)
		ports[key], lists[key] = append(ports[key], port), list
	}
	keys := make([]string, 0, len(lists))
	for k := range lists {
		slices.Sort(ports[k])
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(x, y string) int { return int(ports[x][0]) - int(ports[y][0]) })
	for _, k := range keys {
		for _, t := range lists[k] {
			t.Ports = numbers(ports[k])
			out = append(out, t)
		}
	}
	return out
}

// onPort answers what was asked for on one port.
func (b *builder) onPort(entries []*decisions.Entry) (out []v1alpha1.AuthorizationTarget) {
	by := map[string]*asked{}
	crowded := crowdedPaths(entries)
	for _, e := range entries {
		path, template := folded(e, crowded)
		k := fmt.Sprint(template, e.GRPC, path)
		a := by[k]
		if a == nil {
			a = &asked{path: path, template: template, grpc: e.GRPC}
			by[k] = a
		}
		a.methods, a.hosts = append(a.methods, e.Method), append(a.hosts, e.Host)
	}
	groups := map[string][]*asked{}
	for _, a := range by {
		slices.Sort(a.methods)
		a.methods = slices.Compact(a.methods)
		slices.Sort(a.hosts)
		if a.hosts = slices.Compact(a.hosts); !b.hosts {
			a.hosts = nil
		}
		k := fmt.Sprintf("%v %q %q", a.grpc, a.methods, a.hosts)
		groups[k] = append(groups[k], a)
	}
	keys := make([]string, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		list := groups[k]
		slices.SortFunc(list, func(x, y *asked) int { return strings.Compare(x.path, y.path) })
		for part := range slices.Chunk(list, maxEntries) {
			out = append(out, target(part))
		}
	}
	return out
}

// target answers paths that were asked for in the same way.
func target(list []*asked) (t v1alpha1.AuthorizationTarget) {
	for _, h := range list[0].hosts {
		if h != "" {
			t.Hosts = append(t.Hosts, exactly(h))
		}
	}
	for _, m := range list[0].methods {
		t.Methods = append(t.Methods, methodText(m))
	}
	for _, a := range list {
		if a.grpc {
			t.Procedures = append(t.Procedures, exactly(strings.TrimPrefix(a.path, "/")))
		} else {
			t.Paths = append(t.Paths, pathText(a.path, a.template))
		}
	}
	return t
}

// crowdedPaths answers templates for the paths of a port.
func crowdedPaths(entries []*decisions.Entry) map[string]string {
	var paths []string
	for _, e := range entries {
		if !e.GRPC && plainElements(e) {
			paths = append(paths, once(e))
		}
	}
	return decisions.Templates(paths, crowd)
}

// plainElements reports whether no element of a path looks as a template's does without being one.
func plainElements(e *decisions.Entry) bool {
	return e.Folded || !strings.Contains(e.Path, decision.Any)
}

// once answers a path with what looks like an identifier folded.
func once(e *decisions.Entry) string {
	p, _ := decision.Fold(e.Path)
	return p
}

// folded answers what a path becomes, and whether that is a template.
func folded(e *decisions.Entry, crowded map[string]string) (path string, template bool) {
	if e.GRPC || !plainElements(e) {
		return e.Path, false
	}
	p := once(e)
	if t, ok := crowded[p]; ok {
		p = t
	}
	return p, p != e.Path || e.Folded
}

// exactly answers a text of a policy that fits s and nothing else.
func exactly(s string) string {
	if s == "" || strings.Contains(s, "*") || s[0] == '~' {
		return "~" + regexp.QuoteMeta(s)
	}
	return s
}

// methodText answers a method as policies write it; "get", which is most often GET misspelled, is an expression.
func methodText(m string) string {
	if strings.ToUpper(m) != m {
		return "~" + regexp.QuoteMeta(m)
	}
	return exactly(m)
}

// pathText answers a path, or a template, as policies write it. What they would read otherwise, an escape among it, is an expression.
func pathText(path string, template bool) string {
	rest := path
	if template {
		rest = strings.ReplaceAll(path, decision.Any, "")
	}
	if strings.HasPrefix(path, "/") && !strings.ContainsAny(rest, "{}*%") {
		return path
	}
	if !template {
		return "~" + regexp.QuoteMeta(path)
	}
	var b strings.Builder
	b.WriteByte('~')
	for i, e := range strings.Split(path, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		if e == decision.Any {
			b.WriteString("[^/]+")
		} else {
			b.WriteString(regexp.QuoteMeta(e))
		}
	}
	return b.String()
}
