// Package route_test tells whole stories about routes: one file from resources through the production compiler, the
// wire and the production router to the outcome of calls. A story is a txtar archive under testdata:
//
//	comment: what the story shows
//	-- services.txt --    a line per service that exists: "cart 8080/http 9000"
//	-- resources.yaml --  what a user applies
//	-- model.txt --       golden: the route tables, compiled, sent over the wire and read again
//	-- calls.txt --       "GET http://cart:8080/a?b=c Header: value → outcome"
//
// Several rounds may follow each other: every "resources" section replaces what was applied before, and the sections after
// it belong to it. Run with -update to write the outcomes anew, then read the difference.
package route_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/filter/headers"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
	"github.com/tulle-mesh/tulle/xds/resource"
)

var update = flag.Bool("update", false, "write the golden sections anew")

func TestRoutes(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { story(t, file) })
	}
}

// services are the services of a story.
type services map[model.ServiceName]*registry.Service

func (s services) Service(n model.ServiceName) (*registry.Service, bool) {
	svc, ok := s[n]
	return svc, ok
}

func story(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := compile.Compiler{Index: compile.NewIndex(nil), Services: services{}}
	for i := range a.Files {
		f := &a.Files[i]
		var got string
		switch f.Name {
		case "services.txt":
			c.Services = readServices(t, f.Data)
			continue
		case "resources.yaml":
			c.Index = readRoutes(t, file, f.Data)
			continue
		case "model.txt":
			got = models(t, c)
		case "calls.txt":
			got = calls(t, c, f.Data)
		case "status.txt":
			got = statuses(c)
		default:
			t.Fatalf("%s: section %q is not known", file, f.Name)
		}
		if *update {
			f.Data = []byte(got)
		} else if got != string(f.Data) {
			t.Errorf("%s: got\n%s\nwant\n%s", f.Name, got, f.Data)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readServices(t *testing.T, text []byte) services {
	out := services{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		s := &registry.Service{Service: model.Service{Name: model.ServiceName{Namespace: "default", Name: f[0]}}}
		for _, p := range f[1:] {
			number, proto, _ := strings.Cut(p, "/")
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				t.Fatalf("services.txt: %q: %v", p, err)
			}
			kind := model.ProtocolUnknown
			if proto != "" {
				var ok bool
				if kind, ok = model.ParseProtocol(proto); !ok {
					t.Fatalf("services.txt: %q is no protocol", proto)
				}
			}
			s.Ports = append(s.Ports, model.ServicePort{Port: uint16(n), Protocol: kind})
		}
		out[s.Name] = s
	}
	return out
}

func readRoutes(t *testing.T, file string, text []byte) *compile.Index {
	docs, errs := decode.Read(file, text)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var routes []compile.Route
	for i, d := range docs {
		r, ok := d.Object.(*v1alpha1.HTTPRoute)
		if !ok {
			t.Fatalf("%s is not an HTTPRoute", d.Name())
		}
		routes = append(routes, compile.Route{Object: r, Created: int64(i + 1)})
	}
	return compile.NewIndex(routes)
}

// overTheWire compiles a port's table, sends it, and reads it back: what the proxy gets.
func overTheWire(t *testing.T, c compile.Compiler, name model.PortName) *model.RouteTable {
	table, ok := c.RouteTable(name)
	if !ok {
		return nil
	}
	m, err := resource.EncodeRouteTable(table)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	out, err := resource.DecodeRouteTable(wire)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func models(t *testing.T, c compile.Compiler) string {
	var b strings.Builder
	names := []model.ServiceName{}
	for n := range c.Services.(services) {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b model.ServiceName) int { return strings.Compare(a.Name, b.Name) })
	for _, n := range names {
		s, _ := c.Service(n)
		for _, p := range s.Ports {
			name := model.PortName{Service: n, Port: p.Port}
			table := overTheWire(t, c, name)
			if len(table.Routes) == 1 && strings.HasPrefix(table.Routes[0].Name, "Service/") {
				continue // no route attached: nothing to tell
			}
			fmt.Fprintf(&b, "%s %s\n", name, p.Protocol)
			for _, r := range table.Routes {
				fmt.Fprintf(&b, "  %s rule %d:%s to%s%s%s\n", r.Name, r.Rule, matchText(r.Match), backendsText(r.Backends), filtersText(r.Filters), timeoutsText(r.Timeouts))
			}
		}
	}
	return b.String()
}

func matchText(m model.Match) string {
	out := " " + [...]string{"prefix", "exact", "regex"}[m.PathKind] + " " + m.Path
	if m.Method != "" {
		out += " " + m.Method
	}
	for _, l := range [][]model.FieldMatch{m.Headers, m.Query} {
		for _, f := range l {
			op := "="
			if f.Regex {
				op = "~"
			}
			out += " " + f.Name + op + f.Value
		}
	}
	return out
}

func backendsText(bs []model.Backend) string {
	if len(bs) == 0 {
		return " nowhere"
	}
	out := ""
	for _, b := range bs {
		out += fmt.Sprintf(" %s weight %d", b.Cluster, b.Weight)
		if b.Invalid {
			out += " (invalid)"
		}
		out += filtersText(b.Filters)
	}
	return out
}

func filtersText(fs []model.Filter) string {
	out := ""
	for _, f := range fs {
		out += fmt.Sprintf(" [%s set %v add %v remove %v]", [...]string{"request", "response"}[f.Kind], f.Headers.Set, f.Headers.Add, f.Headers.Remove)
	}
	return out
}

func timeoutsText(t model.Timeouts) string {
	if t == (model.Timeouts{}) {
		return ""
	}
	return fmt.Sprintf(" timeouts request %s attempt %s", t.Request, t.Attempt)
}

// calls runs each line's request through the router and answers the lines with what came of it.
func calls(t *testing.T, c compile.Compiler, text []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		call, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " → ")
		if call == "" {
			continue
		}
		fmt.Fprintf(&b, "%s → %s\n", call, outcome(t, c, call))
	}
	return b.String()
}

func outcome(t *testing.T, c compile.Compiler, call string) string {
	method, rest, _ := strings.Cut(call, " ")
	target, fields, _ := strings.Cut(rest, " ")
	raw := method + " " + target + " HTTP/1.1\r\n"
	for f := range strings.SplitSeq(fields, "; ") {
		if f != "" {
			raw += f + "\r\n"
		}
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw + "\r\n")))
	if err != nil {
		t.Fatalf("call %q: %v", call, err)
	}
	port, err := strconv.ParseUint(req.URL.Port(), 10, 16)
	if err != nil {
		t.Fatalf("call %q needs a port", call)
	}
	name := model.PortName{Service: model.ServiceName{Namespace: "default", Name: req.URL.Hostname()}, Port: uint16(port)}
	m := overTheWire(t, c, name)
	if m == nil {
		return "unknown_port"
	}
	table, err := router.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	h := &message.Head{Method: []byte(method), Target: []byte(req.URL.RequestURI()), Authority: []byte(req.Host), ContentLength: message.NoLength}
	for f := range strings.SplitSeq(fields, "; ") {
		if k, v, ok := strings.Cut(f, ": "); ok {
			h.Add([]byte(k), []byte(v))
		}
	}
	r := table.Match(h)
	if r == nil {
		return "404 no_route"
	}
	if len(r.Backends) == 0 {
		return fmt.Sprintf("500 no_backend by %s rule %d", r.Name, r.Rule)
	}
	return fmt.Sprintf("%s by %s rule %d%s", shares(r), r.Name, r.Rule, rewritten(r, h))
}

// shares answers where 10,000 evenly spread requests go.
func shares(r *router.Route) string {
	const n = 10_000
	count := map[string]int{}
	for i := range uint32(n) {
		b := r.Choose(i * (1<<32/n + 1))
		name := b.Cluster.String()
		if b.Invalid {
			name = "500 no_backend"
		}
		count[name]++
	}
	var out []string
	for name, c := range count {
		out = append(out, fmt.Sprintf("%s %d%%", name, (c+n/200)*100/n))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// rewritten answers the request's fields after the route's filters, if it has any.
func rewritten(r *router.Route, h *message.Head) string {
	var out bytes.Buffer
	for _, f := range r.Filters {
		if f.Kind == model.FilterRequestHeaders {
			headers.Apply(&f.Headers, h)
			out.Reset()
			for _, f := range h.Fields {
				fmt.Fprintf(&out, " %s=%s", f.Name, f.Value)
			}
		}
	}
	if out.Len() == 0 {
		return ""
	}
	return " with" + out.String()
}

// statuses answers what the authors are told.
func statuses(c compile.Compiler) string {
	var b strings.Builder
	for _, r := range c.Index.Routes() {
		for _, p := range c.Status(r.Object) {
			for _, cond := range p.Conditions {
				fmt.Fprintf(&b, "%s on %s: %s=%v %s: %s\n", r.Object.GetName(), p.Ref.Name, cond.Type, cond.True, cond.Reason, cond.Message)
			}
		}
	}
	return b.String()
}
