// Package route_test tells whole stories about routes: one file from resources through the production compiler, the
// wire and the production router to the outcome of calls. A story is a txtar archive under testdata:
//
//	comment: what the story shows
//	-- services.txt --    a line per service that exists, its namespace if not default, its ports: "cart.shop web=8080/http 9000"
//	-- resources.yaml --  what a user applies
//	-- model.txt --       golden: the route tables, compiled, sent over the wire and read again
//	-- calls.txt --       "GET http://cart:8080/a?b=c Header: value → outcome", with "@shop " before it from a caller in namespace
//	                      shop; "TCP db:5432" and "TLS db:5432 name.example" are connections
//	-- status.txt --      golden: what the authors are told
//	-- policies.txt --    golden: what policies change of clusters, routes and tables, sent over the wire and read again, and
//	                      where each value comes from
//	-- conflicts.txt --   golden: what wants the same requests, each tried on the router
//	-- notes.txt --       golden: what refers to something in vain, and which rules use a fault or an answer
//	-- pools.txt --       golden: the clusters of pools, and what their authors are told
//	-- errors.txt --      golden: what is refused; such a story has no other sections after its resources
//
// Several rounds may follow each other: every "resources" section replaces what was applied before, and the sections after
// it belong to it. Run with -update to write the outcomes anew, then read the difference.
package route_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"maps"
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
	"github.com/tulle-mesh/tulle/proxy/relay"
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

func (s services) Services() (out []*registry.Service) {
	for _, n := range slices.SortedFunc(maps.Keys(s), func(a, b model.ServiceName) int { return strings.Compare(a.String(), b.String()) }) {
		out = append(out, s[n])
	}
	return out
}

func story(t *testing.T, file string) {
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := compile.Compiler{Index: compile.NewIndex(nil), Services: services{}}
	refused, pools := "", []*v1alpha1.InferencePool(nil)
	for i := range a.Files {
		f := &a.Files[i]
		var got string
		switch f.Name {
		case "services.txt":
			c.Services = readServices(t, f.Data)
			continue
		case "resources.yaml":
			c.Index, refused = readObjects(file, f.Data)
			if refused == "" {
				c.Services.(services).outside(c.Index.Externals())
			}
			c.Services, pools = withPools(t, c.Services.(services), file, f.Data)
			if next := i + 1; refused != "" && (next == len(a.Files) || a.Files[next].Name != "errors.txt") {
				t.Fatalf("%s", refused)
			}
			continue
		case "model.txt":
			got = models(t, c)
		case "calls.txt":
			got = calls(t, c, f.Data)
		case "status.txt":
			got = statuses(c)
		case "policies.txt":
			got = inForce(t, c)
		case "conflicts.txt":
			got = conflicts(c)
		case "notes.txt":
			got = notes(c)
		case "pools.txt":
			got = poolsText(t, c, pools)
		case "security.txt":
			got = securities(t, c)
		case "asks.txt":
			got = asks(t, c, f.Data)
		case "errors.txt":
			got = refused
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

// outside adds the ExternalServices.
func (s services) outside(all []*v1alpha1.ExternalService) {
	for _, o := range all {
		svc := &registry.Service{Service: model.Service{Name: model.External(o.Namespace, o.Name)}}
		for _, p := range o.Spec.Ports {
			proto, _ := model.ParseProtocol(p.Protocol)
			svc.Ports = append(svc.Ports, model.ServicePort{Name: p.Name, Port: uint16(p.Port), Protocol: proto})
		}
		s[svc.Name] = svc
	}
}

func readServices(t *testing.T, text []byte) services {
	out := services{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		s := &registry.Service{Service: model.Service{Name: serviceName(f[0])}}
		for _, p := range f[1:] {
			name, rest, ok := strings.Cut(p, "=")
			if !ok {
				name, rest = "", p
			}
			number, proto, _ := strings.Cut(rest, "/")
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
			s.Ports = append(s.Ports, model.ServicePort{Name: name, Port: uint16(n), Protocol: kind})
		}
		out[s.Name] = s
	}
	return out
}

// serviceName reads "cart" or "cart.shop".
func serviceName(s string) model.ServiceName {
	name, ns, ok := strings.Cut(s, ".")
	if !ok {
		ns = "default"
	}
	return model.ServiceName{Namespace: ns, Name: name}
}

// readObjects answers what a file applies, or what is wrong with it.
func readObjects(file string, text []byte) (*compile.Index, string) {
	docs, errs := decode.Read(filepath.Base(file), text)
	if len(errs) > 0 {
		return nil, errs.Error() + "\n"
	}
	for _, d := range docs { // as the control plane's API does
		for _, n := range compile.Expressions(d.Object) {
			errs = append(errs, d.Errorf(n.Path, "%s", n.Message))
		}
	}
	if len(errs) > 0 {
		return nil, errs.Error() + "\n"
	}
	var routes []compile.Route
	var policies []compile.Policy
	var beside compile.Beside
	var guards []compile.SecurityPolicy
	var defaults *v1alpha1.TrafficParts
	var mesh *v1alpha1.MeshConfigSpec
	for i, d := range docs {
		switch o := d.Object.(type) {
		case *v1alpha1.ReferenceGrant:
			beside.Grants = append(beside.Grants, o)
		case *v1alpha1.FaultInjection:
			beside.Faults = append(beside.Faults, o)
		case *v1alpha1.ExternalService:
			beside.Externals = append(beside.Externals, o)
		case *v1alpha1.DirectResponse:
			beside.Responses = append(beside.Responses, o)
		case *v1alpha1.TrafficPolicy:
			policies = append(policies, compile.Policy{Object: o, Created: int64(i + 1)})
		case *v1alpha1.MeshConfig:
			defaults, mesh = o.Spec.Defaults, &o.Spec
		case *v1alpha1.AuthorizationPolicy, *v1alpha1.AuthenticationPolicy:
			guards = append(guards, compile.SecurityPolicy{Object: o, Created: int64(i + 1)})
		case *v1alpha1.InferencePool: // withPools
		default:
			if !v1alpha1.IsRoute(o) {
				return nil, d.Name() + " has no place in a story\n"
			}
			routes = append(routes, compile.Route{Object: o, Created: int64(i + 1)})
		}
	}
	return compile.NewIndex(routes).Referred(beside).With(policies, defaults).Secured(guards, mesh), ""
}

// overTheWire compiles a port's table for the callers of a namespace, sends it, and reads it back: what the proxy gets.
func overTheWire(t *testing.T, c compile.Compiler, name model.PortName, caller string) *model.RouteTable {
	if s, ok := c.Service(name.Service); !ok || !slices.Contains(s.Consumers, caller) {
		caller = "" // as a proxy asks
	}
	table, ok := c.RouteTableFor(name, caller)
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
	slices.SortFunc(names, func(a, b model.ServiceName) int { return strings.Compare(a.String(), b.String()) })
	for _, n := range names {
		s, _ := c.Service(n)
		for _, p := range s.Ports {
			for _, caller := range append([]string{""}, s.Consumers...) {
				tableText(&b, overTheWire(t, c, model.PortName{Service: n, Port: p.Port}, caller), p.Protocol)
			}
		}
	}
	return b.String()
}

func tableText(b *strings.Builder, t *model.RouteTable, spoken model.Protocol) {
	if len(t.Routes) == 1 && strings.HasPrefix(t.Routes[0].Name, "Service/") {
		return // no route attached: nothing to tell
	}
	fmt.Fprintf(b, "%s %s\n", t.ResourceName(), spoken)
	for _, r := range t.Routes {
		fmt.Fprintf(b, "  %s rule %d:%s to%s%s%s\n", r.Name, r.Rule, matchText(r.Match), backendsText(r.Backends), filtersText(r.Filters), timeoutsText(r.Timeouts))
	}
	for _, r := range t.Relay {
		fmt.Fprintf(b, "  %s rule %d: %s to%s\n", r.Name, r.Rule, strings.Join(append(r.SNI, "connections"), " "), backendsText(r.Backends))
	}
}

func matchText(m model.Match) string {
	out := " " + [...]string{"prefix", "exact", "regex"}[m.PathKind] + " " + m.Path
	if m.GRPC {
		out = " grpc" + out
	}
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
	caller := "elsewhere"
	if from, rest, ok := strings.Cut(call, " "); ok && from[0] == '@' {
		caller, call = from[1:], rest
	}
	method, rest, _ := strings.Cut(call, " ")
	target, fields, _ := strings.Cut(rest, " ")
	if method == "TCP" || method == "TLS" {
		return connection(t, c, caller, target, fields)
	}
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
	m := overTheWire(t, c, portName(t, req.URL.Host), caller)
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
	by := fmt.Sprintf(" by %s rule %d", r.Name, r.Rule) + beside(r, h)
	switch {
	case r.Direct != nil:
		return fmt.Sprintf("%d %q", r.Direct.Status, r.Direct.Body) + by
	case r.Redirect != nil:
		return redirected(r, h) + by
	case len(r.Backends) == 0:
		return "500 no_backend" + by
	}
	return shares(r.Choose) + by + rewritten(r, h)
}

func portName(t *testing.T, authority string) model.PortName {
	host, port, _ := strings.Cut(authority, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatalf("%q needs a port", authority)
	}
	return model.PortName{Service: serviceName(host), Port: uint16(n)}
}

// connection answers where connections go that are no HTTP, whose ClientHello names sni if they are TLS.
func connection(t *testing.T, c compile.Compiler, caller, target, sni string) string {
	m := overTheWire(t, c, portName(t, target), caller)
	if m == nil {
		return "unknown_port"
	}
	if len(m.Relay) == 0 {
		return m.Name.String()
	}
	r := relay.Match(m.Relay, sni)
	if r == nil {
		return "reset no_route"
	}
	out := shares(func(rnd uint32) *model.Backend { return relay.Choose(r, rnd) }) + " by " + r.Name
	if f := r.Fault; f != nil {
		out += fmt.Sprintf(", fault: wait %s for %g%%, reset %v for %g%%", f.Delay, float64(f.DelayShare)/10000, f.Reset, float64(f.AbortShare)/10000)
	}
	return out
}

// shares answers where 10,000 evenly spread requests go.
func shares(choose func(uint32) *model.Backend) string {
	const n = 10_000
	count := map[string]int{}
	for i := range uint32(n) {
		b := choose(i * (1<<32/n + 1))
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

// rewritten answers what the backend is told: path and host where they are rewritten, the request's fields after the route's
// filters, if it has any.
func rewritten(r *router.Route, h *message.Head) string {
	var out bytes.Buffer
	path, query, _ := strings.Cut(string(h.Target), "?")
	if r.Rewrites() {
		fmt.Fprintf(&out, " as %s", r.AppendRewritten(nil, []byte(path)))
		if query != "" {
			out.WriteString("?" + query)
		}
	}
	if r.Rewrite.Host != "" {
		fmt.Fprintf(&out, " for host %s", r.Rewrite.Host)
	}
	for _, f := range r.Filters {
		if f.Kind == model.FilterRequestHeaders {
			headers.Apply(&f.Headers, h)
			out.WriteString(" with")
			for _, f := range h.Fields {
				fmt.Fprintf(&out, " %s=%s", f.Name, f.Value)
			}
		} else {
			answer := &message.Head{Status: 200}
			headers.Apply(&f.Headers, answer)
			out.WriteString(" answered with")
			for _, f := range answer.Fields {
				fmt.Fprintf(&out, " %s=%s", f.Name, f.Value)
			}
		}
	}
	return out.String()
}

// redirected answers where a redirect leads; what it takes from the request is left out.
func redirected(r *router.Route, h *message.Head) string {
	d := r.Redirect
	path, _, _ := strings.Cut(string(h.Target), "?")
	out := fmt.Sprintf("%d to %s://%s", d.Status, d.Scheme, d.Host)
	if d.Port != 0 {
		out += fmt.Sprintf(":%d", d.Port)
	}
	return out + string(r.AppendRedirected(nil, []byte(path)))
}

// beside answers what else happens to the request.
func beside(r *router.Route, h *message.Head) string {
	out := ""
	for _, m := range r.Mirrors {
		share := m.Fraction
		if share == 0 {
			share = 1_000_000
		}
		out += fmt.Sprintf(", %g%% mirrored to %s", float64(share)/10000, m.Cluster)
		if m.Invalid {
			out += " (invalid)"
		}
	}
	if o := h.Get("origin"); r.CORS != nil && len(o) > 0 {
		out += fmt.Sprintf(", origin allowed %v", r.Allows(o))
		if router.Preflight(h) {
			out += fmt.Sprintf(" for %v with %v, exposing %v, credentials %v, for %s", r.CORS.Methods, r.CORS.Headers, r.CORS.Expose, r.CORS.Credentials, r.CORS.MaxAge)
		}
	}
	if f := r.Inject; f != nil && f.Concerns(h) {
		out += fmt.Sprintf(", fault: wait %s for %g%%, %d (grpc %d, reset %v) for %g%%, %d B/s for %g%%", f.Delay, float64(f.DelayShare)/10000,
			f.Status, f.GRPC, f.Reset, float64(f.AbortShare)/10000, f.Rate, float64(f.RateShare)/10000)
	}
	if s := r.Session; s != nil {
		out += fmt.Sprintf(", session by header %q cookie %q path %q for %s, believed for %s", s.Header, s.Cookie, s.Path, s.Lifetime, s.Absolute)
	}
	if x := r.Retry; x != nil {
		out += fmt.Sprintf(", %d retries on %b %v, wait %s to %s", x.Attempts, x.On, x.Statuses, x.Least, x.Max)
	}
	return out
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
	var every []model.ServiceName
	for _, s := range c.Services.Services() {
		every = append(every, s.Name)
	}
	for _, p := range c.Index.SecurityPolicies() {
		_, accepted, resolved := c.SecurityStatus(p.Object, every)
		for _, cond := range []compile.Condition{accepted, resolved} {
			fmt.Fprintf(&b, "%s: %s=%v %s: %s\n", p.Object.GetName(), cond.Type, cond.True, cond.Reason, cond.Message)
		}
	}
	return b.String()
}
