package advise

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/urlpath"
)

// Bounds of a suggestion; what is more goes into another policy, or another alternative. They are those of AuthorizationPolicy.
const (
	maxRules   = 64
	maxTargets = 64
	maxEntries = 256
	// crowd is how many different elements may be in one place of a caller's paths before they become a template.
	crowd = 16
)

// Suggestion is what would allow what a service was asked for, and nothing else.
type Suggestion struct {
	Service  string                          `json:"service"`
	Policies []*v1alpha1.AuthorizationPolicy `json:"policies"`
	Rules    []Use                           `json:"rules"`
	Unused   []Unused                        `json:"unused"` // of the policies that are in force now
	Notes    []string                        `json:"notes"`  // what is not in it, and why
}

// Use says what a rule of a suggestion was used for.
type Use struct {
	Policy  string   `json:"policy"`
	Rule    string   `json:"rule"`
	Callers []string `json:"callers"`
	Count   uint64   `json:"count"`
	First   int64    `json:"first"` // milliseconds of Unix time
	Last    int64    `json:"last"`
	What    string   `json:"what"` // the last that it was used for: "GET /items/17"
	Request string   `json:"request,omitempty"`
}

// Unused is a rule that decided nothing that was recorded.
type Unused struct {
	Policy string `json:"policy"`
	Rule   string `json:"rule"`
	Action string `json:"action"`
}

// Options of Suggest.
type Options struct {
	Hosts bool  // rules say which hosts were asked for; otherwise any will do: callers choose what they write there
	Now   int64 // Unix seconds
}

// Suggest proposes policies for services, from what they have let in. A service that has let nothing in gets none.
func Suggest(list []decisions.Service, c compile.Compiler, o Options) (out []Suggestion, err error) {
	for i := range list {
		s := &list[i]
		in, ok := c.Security(s.Name)
		if !ok {
			continue
		}
		one := Suggestion{Service: s.Name.String(), Policies: []*v1alpha1.AuthorizationPolicy{}, Rules: []Use{}, Unused: []Unused{}, Notes: []string{}}
		if one.Unused, err = unused(in, s.Entries, o.Now); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		b := builder{name: s.Name, hosts: o.Hosts, out: &one}
		b.build(s)
		out = append(out, one)
	}
	return out, nil
}

// unused answers the rules that decide nothing of what was recorded.
func unused(s *model.Security, entries []decisions.Entry, now int64) ([]Unused, error) {
	type rule struct{ policy, name string }
	used := map[rule]bool{}
	forced := *s // those in dry run too: a rule of them is used if it would decide
	forced.Policies = slices.Clone(s.Policies)
	for i := range forced.Policies {
		forced.Policies[i].DryRun = false
	}
	both := [...]*policies{newPolicies(s), newPolicies(&forced)}
	for i := range entries {
		e := &entries[i]
		used[rule{e.Policy, e.Rule}] = true
		for _, p := range both {
			g, err := p.gateOf(e)
			if err != nil {
				return nil, err
			}
			view := viewOf(e, g.Issuers, int(s.TrustedHops))
			w, err := p.worldsOf(e, &view)
			if err != nil {
				return nil, err
			}
			v, most, _ := w.ask(e, &view, now)
			if v.By != nil {
				used[rule{v.By.Policy, v.By.Name}] = true
			}
			if most.By != nil {
				used[rule{most.By.Policy, most.By.Name}] = true
			}
			for _, r := range []struct{ a, b string }{said(v.Audit), said(v.External), said(most.Audit), said(most.External)} {
				used[rule{r.a, r.b}] = true
			}
		}
	}
	out := []Unused{}
	for _, p := range s.Policies {
		for _, r := range p.Rules {
			if !used[rule{p.Name, r.Name}] {
				out = append(out, Unused{p.Name, r.Name, actionName(p.Action)})
			}
		}
	}
	return out, nil
}

func actionName(a model.Action) string {
	return [...]string{v1alpha1.ActionExternal, v1alpha1.ActionDeny, v1alpha1.ActionAllow, v1alpha1.ActionAudit}[a%4]
}

// builder makes the policies of one service.
type builder struct {
	name  model.ServiceName
	hosts bool
	out   *Suggestion
}

// caller is what one has done.
type caller struct {
	principal string
	entries   []*decisions.Entry
	to        []v1alpha1.AuthorizationTarget
	use       Use
}

// build makes policies of what was allowed. A policy that looks at requests makes its ports HTTP and nothing else, so what is not HTTP
// has policies of its own.
func (b *builder) build(s *decisions.Service) {
	var http, tcp []*decisions.Entry
	denied, refused := uint64(0), uint64(0)
	plain := map[uint16]bool{} // ports that connections were let in to that are not HTTP
	for i := range s.Entries {
		if e := &s.Entries[i]; e.Verdict == "denied" {
			denied += e.Count
		} else {
			plain[e.Port] = plain[e.Port] || e.TCP
		}
	}
	mixed := map[uint16]bool{}
	for i := range s.Entries {
		switch e := &s.Entries[i]; {
		case e.Verdict == "denied":
		case unread(e):
			refused += e.Count
		case plain[e.Port]:
			tcp = append(tcp, e)
			mixed[e.Port] = mixed[e.Port] || !e.TCP
		default:
			http = append(http, e)
		}
	}
	if denied > 0 {
		b.note("%d requests or connections that were denied are left out", denied)
	}
	if refused > 0 {
		b.note("%d requests are left out whose paths can be read in more than one way (escaped slashes, ;, and the like): where a policy looks at requests they are answered 400", refused)
	}
	if s.Others > 0 {
		b.note("%d decisions were counted, but there was no room to record them: what they were about is not allowed by this", s.Others)
	}
	for port, is := range mixed {
		if is {
			b.note("port %d carries HTTP and something else: its rules cannot look at requests", port)
		}
	}
	slices.Sort(b.out.Notes)
	if len(http)+len(tcp) == 0 {
		b.note("nothing was let in: no policy is suggested")
		return
	}
	if len(tcp) > 0 {
		b.policies(b.name.Name+"-observed-connections", b.callers(tcp, b.connections), nil)
	}
	if len(http) > 0 {
		if len(tcp) == 0 {
			b.policies(b.name.Name+"-observed", b.callers(http, b.requests), nil)
			return
		}
		b.sections(http) // the policy above is about every port, so that none is left open
	}
}

// unread reports whether a request has a path that no policy ever judges.
func unread(e *decisions.Entry) bool {
	if e.TCP {
		return false
	}
	_, fault := urlpath.Text(e.Path)
	return fault != urlpath.None && fault != urlpath.Escape
}

// sections makes policies that are about the ports of entries alone.
func (b *builder) sections(entries []*decisions.Entry) {
	var ports []uint16
	for _, e := range entries {
		ports = append(ports, e.Port)
	}
	slices.Sort(ports)
	for part := range slices.Chunk(slices.Compact(ports), maxSections) {
		var of []*decisions.Entry
		for _, e := range entries {
			if slices.Contains(part, e.Port) {
				of = append(of, e)
			}
		}
		name := b.name.Name + "-observed"
		if part[0] != slices.Min(ports) {
			name += "-from-" + strconv.Itoa(int(part[0]))
		}
		b.policies(name, b.callers(of, b.requests), part)
	}
}

func (b *builder) note(format string, args ...any) {
	b.out.Notes = append(b.out.Notes, fmt.Sprintf(format, args...))
}

// callers puts entries together by who asked, and says what each is allowed.
func (b *builder) callers(entries []*decisions.Entry, to func([]*decisions.Entry) []v1alpha1.AuthorizationTarget) (out []*caller) {
	by := map[string]*caller{}
	for _, e := range entries {
		c := by[e.Principal]
		if c == nil {
			c = &caller{principal: e.Principal}
			by[e.Principal] = c
			out = append(out, c)
		}
		c.entries = append(c.entries, e)
		c.use.Count += e.Count
		if c.use.First == 0 || e.First < c.use.First {
			c.use.First = e.First
		}
		if e.Last >= c.use.Last {
			c.use.Last, c.use.What, c.use.Request = e.Last, what(e), e.Request
		}
	}
	for _, c := range out {
		c.to = to(c.entries)
	}
	slices.SortFunc(out, func(a, b *caller) int { return cmp.Compare(a.principal, b.principal) })
	return out
}

// what says what was asked for.
func what(e *decisions.Entry) string {
	if e.TCP {
		return "a connection to port " + strconv.Itoa(int(e.Port))
	}
	path := e.Path
	if e.Sample != "" {
		path = e.Sample
	}
	return e.Method + " " + path
}

// policies makes as few as there can be: callers that are allowed the same share a rule.
func (b *builder) policies(name string, callers []*caller, ports []uint16) {
	var rules []v1alpha1.AuthorizationRule
	var uses []Use
	at := map[string]int{}
	for _, c := range callers {
		for part := range slices.Chunk(c.to, maxTargets) {
			key := fmt.Sprintf("%v %q", c.principal == "", part)
			i, known := at[key]
			if !known || len(rules[i].From[0].Principals) >= maxEntries {
				i = len(rules)
				at[key] = i
				rules = append(rules, v1alpha1.AuthorizationRule{From: []v1alpha1.AuthorizationSource{{}}, To: part})
				uses = append(uses, Use{})
			}
			add(&rules[i].From[0], &uses[i], c)
		}
	}
	n := 0
	for list := range slices.Chunk(rules, maxRules) {
		p := &v1alpha1.AuthorizationPolicy{TypeMeta: v1alpha1.TypeMeta{APIVersion: "tulle.dev/v1alpha1", Kind: "AuthorizationPolicy"}}
		p.Namespace, p.Name = b.name.Namespace, name
		if n > 0 {
			p.Name += "-" + strconv.Itoa(n/maxRules+1)
		}
		p.Spec.Action = v1alpha1.ActionAllow
		p.Spec.TargetRefs = b.targets(ports)
		names := map[string]int{}
		for i := range list {
			list[i].Name = ruleName(uses[n+i].Callers, names)
			uses[n+i].Policy, uses[n+i].Rule = "AuthorizationPolicy/"+p.Namespace+"/"+p.Name, list[i].Name
		}
		p.Spec.Rules = list
		n += len(list)
		b.out.Policies = append(b.out.Policies, p)
	}
	b.out.Rules = append(b.out.Rules, uses...)
}

// maxSections is how many ports one policy may name.
const maxSections = 16

func (b *builder) targets(ports []uint16) (out []v1alpha1.PolicyTarget) {
	ref := v1alpha1.PolicyTarget{Kind: "Service", Name: b.name.Name}
	if len(ports) == 0 {
		return append(out, ref)
	}
	for _, port := range ports {
		ref.SectionName = strconv.Itoa(int(port))
		out = append(out, ref)
	}
	return out
}

// add lets a rule be about one more caller.
func add(from *v1alpha1.AuthorizationSource, use *Use, c *caller) {
	if c.principal == "" {
		from.NotPrincipals = []string{"*"}
		use.Callers = []string{"plaintext"}
	} else {
		from.Principals = append(from.Principals, exactly(c.principal))
		use.Callers = append(use.Callers, c.principal)
	}
	use.Count += c.use.Count
	if use.First == 0 || c.use.First < use.First {
		use.First = c.use.First
	}
	if c.use.Last >= use.Last {
		use.Last, use.What, use.Request = c.use.Last, c.use.What, c.use.Request
	}
}

// ruleName names a rule for its first caller.
func ruleName(callers []string, taken map[string]int) string {
	first := callers[0][strings.LastIndexByte(callers[0], '/')+1:]
	clean := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, first), "-")
	name := cmp.Or(clean[:min(len(clean), 40)], "caller")
	name = strings.TrimRight(name, "-")
	if len(callers) > 1 {
		name += fmt.Sprintf("-and-%d-more", len(callers)-1)
	}
	taken[name]++
	if n := taken[name]; n > 1 {
		name += "." + strconv.Itoa(n)
	}
	return name
}
