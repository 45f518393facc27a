package compile

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/model"
)

// Bounds of one table's search.
const (
	maxPairs     = 20000 // of matches that are compared
	maxConflicts = 50
)

// Conflict is two objects that want the same request. The result is always defined; the conflict says which of them gets it.
type Conflict struct {
	On     string `json:"on"`     // "Service/default/cart:80": whose requests
	Winner string `json:"winner"` // "HTTPRoute/default/a, rule 0"
	Loser  string `json:"loser"`
	// Tie: both are equally specific, only age or name decides. What is not a tie is decided by what the matches say, which may
	// well be meant.
	Tie bool `json:"tie"`
	// Whole: the winner decides about the whole port, whatever it matches, and the loser about nothing there: it is a route of a less
	// specific kind.
	Whole bool `json:"whole,omitempty"`
	// Elsewhere: but the loser decides about another port of the service.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Request is one that both would take; nil: whether there is one cannot be told.
	Request *Request `json:"request,omitempty"`
	// First takes the request before both of them; "": the winner does.
	First   string `json:"first,omitempty"`
	Why     string `json:"why"`     // the winner wins
	Resolve string `json:"resolve"` // what to do about it

	objects [2]string // winner, loser
	rules   [2]int    // of routes; -1: all
	port    uint16
}

// Warning reports whether something has no effect for no reason that it says itself: by age, name or kind, or perhaps.
func (c *Conflict) Warning() bool { return c.Refused() || c.Request == nil }

// Refused reports whether a strict apply stores nothing because of it.
func (c *Conflict) Refused() bool { return c.Tie || c.Whole && !c.Elsewhere }

// Together answers each pair once for each service and namespace of callers: what is so on several ports of a service is one
// conflict, on the first of them.
func Together(list []Conflict) (out []Conflict) {
	seen := map[string]int{}
	for _, c := range list {
		key := strings.Join([]string{strings.Replace(c.On, fmt.Sprintf(":%d", c.port), "", 1), c.Winner, c.Loser, c.Why}, "|")
		at, ok := seen[key]
		if !ok {
			seen[key] = len(out)
			out = append(out, c)
			continue
		}
		out[at].On += fmt.Sprintf(" and :%d", c.port)
	}
	return out
}

// String answers the conflict in one line.
func (c *Conflict) String() string {
	s := c.On + ": "
	switch {
	case c.Whole:
		return s + fmt.Sprintf("%s would take `%s`, but %s decides about the whole port: %s. %s", c.Loser, c.Request, c.Winner, c.Why, c.Resolve)
	case c.Request == nil:
		return s + fmt.Sprintf("whether a request can match both %s and %s cannot be told; %s would win: %s. %s", c.Winner, c.Loser, c.Winner, c.Why, c.Resolve)
	}
	s += fmt.Sprintf("%s and %s both match `%s`; %s wins: %s", c.Winner, c.Loser, c.Request, c.Winner, c.Why)
	if c.First != "" {
		s += fmt.Sprintf(" (that very request is taken before by %s)", c.First)
	}
	return s + ". " + c.Resolve
}

// Objects answers the loser and the winner, such as "HTTPRoute/default/a".
func (c *Conflict) Objects() []string { return []string{c.objects[1], c.objects[0]} }

// Place answers the field of one of the objects that the conflict is about.
func (c *Conflict) Place(object string) string {
	for i, o := range c.objects {
		switch {
		case o != object || strings.HasPrefix(o, "TrafficPolicy/"):
		case c.rules[i] < 0:
			return "spec.parentRefs"
		default:
			return fmt.Sprintf("spec.rules[%d]", c.rules[i])
		}
	}
	return "spec"
}

// About reports whether an object, such as "HTTPRoute/default/a", is one of the two.
func (c *Conflict) About(object string) bool { return slices.Contains(c.objects[:], object) }

// Takes tries a request on one route: the router of the data plane. nil: what the search has found is believed.
type Takes func(r *model.Route, q *Request) bool

// Conflicts answers which objects want the same requests of a port: its routes, of different objects that do different
// things, each pair of rules once, and the policies about the port.
func (c Compiler) Conflicts(name model.PortName, takes Takes) []Conflict {
	var out []Conflict
	for _, caller := range append([]string{""}, c.Index.consumers(name.Service)...) {
		if t, ok := c.RouteTableFor(name, caller); ok {
			out = slices.Concat(out, c.kindConflicts(t), c.overlaps(t, takes, false), c.relayConflicts(t), c.policyConflicts(t))
		}
	}
	for i := range out {
		out[i].port = name.Port
	}
	return slices.CompactFunc(out, func(a, b Conflict) bool { return a.On == b.On && a.objects == b.objects && a.rules == b.rules })
}

// kindConflicts answers the routes of a port that have no effect there, because one of a more specific kind is attached to it.
func (c Compiler) kindConflicts(t *model.RouteTable) (out []Conflict) {
	all := c.candidates(t.Name, t.Caller)
	kind := decides(all)
	for _, r := range all {
		if r.Kind == kind {
			continue
		}
		winner := all[slices.IndexFunc(all, func(o Route) bool { return o.Kind == kind })]
		resolve := "Name different ports in their parentRefs"
		if r.Kind == "HTTPRoute" {
			resolve += ", or write both as HTTPRoutes, which match the paths of gRPC too"
		}
		out = append(out, Conflict{On: tableText(t), Winner: winner.Name(), Loser: r.Name(), Whole: true, Elsewhere: c.decidesElsewhere(r, t), Request: c.example(r, t.Name),
			Why:     "routes of one kind only are run on a port, and " + kind + " is a more specific kind than " + r.Kind,
			Resolve: resolve,
			objects: [2]string{winner.Name(), r.Name()}, rules: [2]int{-1, -1}})
	}
	return out
}

// decidesElsewhere reports whether a route decides about another port of the table's service.
func (c Compiler) decidesElsewhere(r Route, t *model.RouteTable) bool {
	s, ok := c.Services.Service(t.Name.Service)
	return ok && slices.ContainsFunc(s.Ports, func(p model.ServicePort) bool {
		return p.Port != t.Name.Port && slices.ContainsFunc(c.attached(model.PortName{Service: t.Name.Service, Port: p.Port}, t.Caller), func(o Route) bool { return o.Name() == r.Name() })
	})
}

// example answers a request or a connection that a route alone would take.
func (c Compiler) example(r Route, to model.PortName) *Request {
	var routes []model.Route
	switch r.Kind {
	case "HTTPRoute":
		routes = c.httpRoute(r)
	case "GRPCRoute":
		routes = c.grpcRoutes([]Route{r})
	}
	for i := range routes {
		search := effort{maxWork}
		if q, found := search.witness(to, &routes[i].Match, &routes[i].Match); found == findOne {
			return q
		}
	}
	q := &Request{Host: to.String()}
	if relay := c.relayRoutes([]Route{r}); len(relay) > 0 && len(relay[0].SNI) > 0 {
		q.Server = strings.Replace(relay[0].SNI[0], "*", "a", 1)
	}
	return q
}

// relayConflicts answers which routes of connections want the same ones.
func (c Compiler) relayConflicts(t *model.RouteTable) (out []Conflict) {
	for j := range t.Relay {
		for i := range t.Relay[:j] {
			a, b := &t.Relay[i], &t.Relay[j]
			name, ok := sameServer(a.SNI, b.SNI)
			if a.Name == b.Name || !ok || reflect.DeepEqual(a.Backends, b.Backends) {
				continue
			}
			one := Conflict{On: tableText(t), Winner: relayName(a), Loser: relayName(b), Request: &Request{Host: t.Name.String(), Server: name},
				Tie: slices.Equal(a.SNI, b.SNI), Why: "a name comes before a wildcard, and a longer one before a shorter one",
				Resolve: "Take the name out of one of them", objects: [2]string{a.Name, b.Name}, rules: [2]int{a.Rule, b.Rule}}
			if one.Tie {
				one.Why = c.byAge(a.Name, b.Name)
			}
			if a.SNI == nil {
				one.Resolve = "Remove one of them: a port has one TCPRoute"
			}
			out = append(out, one)
		}
	}
	return out
}

func relayName(r *model.RelayRoute) string { return fmt.Sprintf("%s, rule %d", r.Name, r.Rule) }

// sameServer answers a server name that both take; "" is every connection.
func sameServer(a, b []string) (string, bool) {
	if a == nil || b == nil {
		return "", true
	}
	for _, x := range a {
		for _, y := range b {
			if x == y || strings.HasPrefix(y, "*.") && strings.HasSuffix(x, y[1:]) {
				return strings.Replace(x, "*", "a", 1), true
			}
			if strings.HasPrefix(x, "*.") && strings.HasSuffix(y, x[1:]) {
				return strings.Replace(y, "*", "a", 1), true
			}
		}
	}
	return "", false
}

// tableText answers "Service/default/cart:80", and for callers of one namespace alone that.
func tableText(t *model.RouteTable) string {
	s := "Service/" + t.Name.Service.Namespace + "/" + t.Name.Service.Name + fmt.Sprintf(":%d", t.Name.Port)
	if t.Caller != "" {
		s += ", for callers in " + t.Caller
	}
	return s
}

// Overlaps answers every pair of rules of a table, of different objects, that some request matches both of: also where it
// does not matter, because they do the same.
func (c Compiler) Overlaps(t *model.RouteTable, takes Takes) []Conflict {
	return c.overlaps(t, takes, true)
}

type pair struct{ winner, loser string }

func (c Compiler) overlaps(t *model.RouteTable, takes Takes, all bool) []Conflict {
	found, order, pairs, search := map[pair]*Conflict{}, []pair{}, 0, effort{maxEffort}
	for i := range t.Routes {
		a := &t.Routes[i]
		for j := i + 1; j < len(t.Routes); j++ {
			b := &t.Routes[j]
			if a.Name == b.Name || !all && sameOutcome(a, b) {
				continue
			}
			key := pair{ruleName(a), ruleName(b)}
			if f := found[key]; f != nil && f.Request != nil {
				continue
			}
			if pairs++; pairs > maxPairs || len(order) == maxConflicts {
				return gather(found, order)
			}
			r, f := search.witness(t.Name, &a.Match, &b.Match)
			if f == findOne && takes != nil && (!takes(a, r) || !takes(b, r)) {
				r, f = nil, findUnknown // the search and the router do not agree: it is not claimed
			}
			if f == findNone || f == findUnknown && found[key] != nil {
				continue
			}
			if found[key] == nil {
				order = append(order, key)
			}
			found[key] = c.conflict(t, i, j, r, takes)
		}
	}
	return gather(found, order)
}

func gather(found map[pair]*Conflict, order []pair) (out []Conflict) {
	for _, key := range order {
		out = append(out, *found[key])
	}
	return out
}

// conflict describes what the routes i and j of a table, of which i comes first, both want.
func (c Compiler) conflict(t *model.RouteTable, i, j int, r *Request, takes Takes) *Conflict {
	a, b := &t.Routes[i], &t.Routes[j]
	out := &Conflict{On: tableText(t), Winner: ruleName(a), Loser: ruleName(b),
		Request: r, objects: [2]string{a.Name, b.Name}, rules: [2]int{a.Rule, b.Rule}}
	out.Why, out.Tie = c.why(a, b)
	out.Resolve = "If that is not meant, make the match of " + out.Winner + " narrower"
	if out.Tie {
		out.Resolve = "Give them matches that differ, or put both rules into one route, where the order of the rules decides"
	}
	for k := 0; r != nil && takes != nil && k < i; k++ {
		if takes(&t.Routes[k], r) {
			out.First = ruleName(&t.Routes[k])
			break
		}
	}
	return out
}

func ruleName(r *model.Route) string { return fmt.Sprintf("%s, rule %d", r.Name, r.Rule) }

// why says why a comes before b, and whether that is by age or name only.
func (c Compiler) why(a, b *model.Route) (string, bool) {
	m, n := &a.Match, &b.Match
	switch {
	case m.GRPC && n.GRPC && (m.PathKind != n.PathKind || len(m.Path) != len(n.Path)):
		return "it compares more characters of the service, or of the method", false
	case m.PathKind != n.PathKind:
		kinds := map[model.PathKind]string{model.PathExact: "an exact path", model.PathRegex: "a regular expression", model.PathPrefix: "a prefix"}
		return kinds[m.PathKind] + " comes before " + kinds[n.PathKind], false
	case len(m.Path) != len(n.Path):
		return fmt.Sprintf("%q is longer than %q", m.Path, n.Path), false
	case m.Method != n.Method && n.Method == "":
		return "it names a method", false
	case len(m.Headers) != len(n.Headers):
		return fmt.Sprintf("it compares %d headers, the other one %d", len(m.Headers), len(n.Headers)), false
	case len(m.Query) != len(n.Query):
		return fmt.Sprintf("it compares %d query parameters, the other one %d", len(m.Query), len(n.Query)), false
	}
	return c.byAge(a.Name, b.Name), true
}

// byAge says why a comes before b, which is equally specific.
func (c Compiler) byAge(a, b string) string {
	if c.Index.created(a) < c.Index.created(b) {
		return "they are equally specific, and it is older"
	}
	return "they are equally specific and of the same age, and its name comes first"
}

// created answers when a route was made, 0 if it is not known.
func (ix *Index) created(route string) int64 {
	for _, r := range ix.all {
		if r.Name() == route {
			return r.Created
		}
	}
	return 0
}

// sameOutcome reports whether two routes do the same with what they take.
func sameOutcome(a, b *model.Route) bool {
	x, y := *a, *b
	x.Name, y.Name, x.Rule, y.Rule, x.Match, y.Match = "", "", 0, 0, model.Match{}, model.Match{}
	return reflect.DeepEqual(x, y)
}

// policyConflicts answers which policies about a port, or a route of it, say different things about the same part: the
// younger one's is not in force.
func (c Compiler) policyConflicts(t *model.RouteTable) (out []Conflict) {
	on := tableText(t)
	any := &Request{Method: "GET", Host: t.Name.String(), Target: "/"}
	if m, ok := c.Cluster(t.Name); ok && (m.Protocol == model.ProtocolTCP || m.Protocol == model.ProtocolTLS) {
		any = &Request{Host: t.Name.String()}
	}
	s, _ := c.Services.Service(t.Name.Service)
	out = append(out, contradictions(on, c.Index.policies.attached(portPlaces(s, t.Name)...), any)...)
	out = append(out, contradictions(on, c.Index.policies.attached(servicePlace(t.Name.Service)), any)...)
	seen := map[place]bool{}
	for i := range t.Routes {
		r := &t.Routes[i]
		kind, rest, _ := strings.Cut(r.Name, "/")
		namespace, name, _ := strings.Cut(rest, "/")
		section, _ := c.Index.rule(r.Name, r.Rule)
		for _, s := range []string{section, ""} {
			p := place{kind, namespace, name, s}
			if kind == "Service" || seen[p] {
				continue
			}
			seen[p] = true
			if list := c.Index.policies.attached(p); len(list) > 1 {
				search := effort{maxWork}
				example, _ := search.witness(t.Name, &r.Match, &r.Match)
				out = append(out, contradictions(on, list, example)...)
			}
		}
	}
	return out
}

// contradictions answers the parts that more than one policy on the same place has; list is oldest first.
func contradictions(on string, list []attachedPolicy, example *Request) (out []Conflict) {
	for j, young := range list {
		for _, old := range list[:j] {
			parts := shared(&old.Object.Spec.TrafficParts, &young.Object.Spec.TrafficParts)
			if example != nil && example.Method == "" { // a connection: what is about requests means nothing there
				parts = slices.DeleteFunc(parts, func(part string) bool { return slices.Contains(requestParts(), part) })
			}
			if len(parts) == 0 {
				continue
			}
			why := "it is older"
			if old.Created == young.Created {
				why = "they are of the same age, and its name comes first"
			}
			out = append(out, Conflict{On: on, Winner: old.name(), Loser: young.name(), Tie: true, Request: example, Why: why,
				Resolve: "Remove " + strings.Join(parts, ", ") + " from one of them, or attach one to a port, a route or a rule",
				objects: [2]string{old.name(), young.name()}})
		}
	}
	return out
}

// shared answers the fields that both have with different values.
func shared(a, b *v1alpha1.TrafficParts) (out []string) {
	var ta Treatment
	ta.add(a, Source{})
	has := map[string]bool{}
	for _, s := range ta.From {
		has[s.Field] = true
	}
	var tb Treatment
	tb.add(b, Source{})
	for _, s := range tb.From {
		if has[s.Field] && !sameField(a, b, s.Field) {
			out = append(out, s.Field)
		}
	}
	return out
}
