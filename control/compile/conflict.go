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
	// Request is one that both would take; nil: whether there is one cannot be told.
	Request *Request `json:"request,omitempty"`
	// First takes the request before both of them; "": the winner does.
	First   string `json:"first,omitempty"`
	Why     string `json:"why"`     // the winner wins
	Resolve string `json:"resolve"` // what to do about it

	objects [2]string // winner, loser
	rules   [2]int    // of routes
}

// String answers the conflict in one line.
func (c *Conflict) String() string {
	s := c.On + ": "
	if c.Request == nil {
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
		if o == object && !strings.HasPrefix(o, "TrafficPolicy/") {
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
			out = append(append(append(out, c.overlaps(t, takes, false)...), c.relayConflicts(t)...), c.policyConflicts(t)...)
		}
	}
	return slices.CompactFunc(out, func(a, b Conflict) bool { return a.On == b.On && a.objects == b.objects && a.rules == b.rules })
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
