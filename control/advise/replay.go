package advise

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model/authz"
	"github.com/tulle-mesh/tulle/model/decision"
)

// WhatIf is what a change of policies does to what was recorded.
type WhatIf struct {
	Flips    []Flip   `json:"flips"`
	Unknown  []Flip   `json:"unknown"`  // what may flip: Why says what was not recorded
	Affected []string `json:"affected"` // callers of Flips, in order; "plaintext" is who has shown no identity
	Requests uint64   `json:"requests"` // and connections that were looked at
	Others   uint64   `json:"others"`   // that were counted, but not recorded: nothing can be told of them
	Services []string `json:"services"` // whose policies the change changes
}

// Flip is requests, or connections, of which the answer changes.
type Flip struct {
	Service string `json:"service"`
	Labels  string `json:"labels,omitempty"` // of the workloads, where policies tell them apart
	decision.Key
	Before  string   `json:"before"` // allowed or denied, by the policies that are in force now
	After   string   `json:"after"`
	By      string   `json:"by"` // what decides then
	Count   uint64   `json:"count"`
	Last    int64    `json:"last"`
	Request string   `json:"request,omitempty"` // x-request-id of one of them
	Sample  string   `json:"sample,omitempty"`  // path that was asked about, where Path stands for many
	Why     []string `json:"why,omitempty"`     // of Unknown: what was not recorded
}

// Replay asks the policies before and after a change about what was recorded. now is the time of both, Unix seconds.
func Replay(list []decisions.Service, before, after compile.Compiler, now int64) (WhatIf, error) {
	out := WhatIf{Flips: []Flip{}, Unknown: []Flip{}, Affected: []string{}, Services: []string{}}
	for i := range list {
		s := &list[i]
		was, _ := before.Security(s.Name)
		is, _ := after.Security(s.Name)
		if was == nil || is == nil { // not a service any more, or not yet
			continue
		}
		if reflect.DeepEqual(was, is) {
			out.count(s)
			continue
		}
		out.Services, out.Others = append(out.Services, s.Name.String()), out.Others+s.Others
		r := replay{service: s.Name.String(), was: newPolicies(was), is: newPolicies(is), now: now, selects: selects(was) || selects(is)}
		for j := range s.Entries {
			out.Requests += s.Entries[j].Count
			if err := r.entry(&s.Entries[j], &out); err != nil {
				return out, fmt.Errorf("%s: %w", s.Name, err)
			}
		}
	}
	out.sort()
	return out, nil
}

func (w *WhatIf) count(s *decisions.Service) {
	for j := range s.Entries {
		w.Requests += s.Entries[j].Count
	}
}

// replay is of one service.
type replay struct {
	service string
	was, is *policies
	now     int64
	selects bool
}

// outcome is what becomes of an entry where some policies are in force.
type outcome struct {
	allowed    bool
	sure       bool // whatever is not known
	by         func() string
	authorizer string
	untold     []string // where it is not sure
}

// outcome answers what becomes of e under p; other is what it is compared with.
func (r *replay) outcome(p, other *policies, e *decisions.Entry) (out outcome, err error) {
	g, err := p.gateOf(e)
	if err != nil {
		return out, err
	}
	h, err := other.gateOf(e)
	if err != nil {
		return out, err
	}
	v := viewOf(e, g.Issuers, int(p.of.TrustedHops))
	refused, unknown := refuses(g, e, &v, h)
	if refused != "" {
		return outcome{sure: true, by: func() string { return refused }}, nil
	}
	w, err := p.worldsOf(e, &v)
	if err != nil {
		return out, err
	}
	said, _, sure := w.ask(e, &v, r.now)
	out = outcome{allowed: said.Allowed, sure: sure, authorizer: said.Authorizer, by: func() string { return w.why(&said, e, &v, r.now) }}
	if !sure {
		out.untold = w.untold
	}
	if unknown != "" && (said.Allowed || !sure) { // what is denied in any case stays so
		out.sure, out.untold = false, append(slices.Clone(out.untold), unknown)
	}
	return out, nil
}

// entry adds what becomes of one entry.
func (r *replay) entry(e *decisions.Entry, out *WhatIf) error {
	f := Flip{Service: r.service, Key: e.Key, Count: e.Count, Last: e.Last, Request: e.Request, Sample: e.Sample}
	mixed := r.selects && e.Labels == decisions.Mixed
	if f.Labels = ""; r.selects {
		f.Labels = e.Labels
	}
	first, err := r.outcome(r.was, r.is, e)
	if err != nil {
		return err
	}
	second, err := r.outcome(r.is, r.was, e)
	if err != nil {
		return err
	}
	f.Before, f.After = uncertain(first), uncertain(second)
	switch {
	case mixed:
		f.Why = append(f.Why, "which of the service's workloads it was")
	case first.sure && second.sure && first.authorizer == second.authorizer:
		if first.allowed != second.allowed {
			f.By = second.by()
			out.Flips = append(out.Flips, f)
		}
		return nil
	}
	for _, list := range [][]string{first.untold, second.untold} {
		f.Why = append(f.Why, list...)
	}
	slices.Sort(f.Why)
	if f.Why = slices.Compact(f.Why); first.authorizer != second.authorizer {
		f.Why = append(f.Why, "what an authorizer answers")
	}
	f.By = second.by()
	out.Unknown = append(out.Unknown, f)
	return nil
}

func verdict(allowed bool) string {
	if allowed {
		return decision.Allowed
	}
	return decision.Denied
}

func uncertain(o outcome) string {
	if o.sure {
		return verdict(o.allowed)
	}
	return "allowed or denied"
}

// by says what decides.
func by(v *authz.Verdict) string {
	switch {
	case v.By != nil:
		return v.By.Policy + " " + v.By.Name
	case v.Absent:
		return "nothing allows it"
	case !v.Allowed:
		return "the port takes nothing but HTTP, as a policy looks at requests"
	}
	return "no policy is about it"
}

// why is by, with the nearest rule where none allows it.
func (w *worlds) why(v *authz.Verdict, e *decisions.Entry, view *view, now int64) string {
	text := by(v)
	if !v.Absent {
		return text
	}
	a := view.attributes(e, now)
	if rule, missing := w.least.Nearest(&a, !e.TCP); rule != nil {
		var parts []string
		for _, m := range missing {
			parts = append(parts, m.String())
		}
		text += "; nearest is " + rule.Policy + " " + rule.Name + ": " + strings.Join(parts, ", ")
	}
	return text
}

// Caller is who asked.
func (f *Flip) Caller() string {
	if f.Principal == "" {
		return "plaintext"
	}
	return f.Principal
}

// sort puts what loses most first.
func (w *WhatIf) sort() {
	for _, list := range [...][]Flip{w.Flips, w.Unknown} {
		slices.SortStableFunc(list, func(a, b Flip) int {
			return cmp.Or(strings.Compare(b.After, a.After), cmp.Compare(b.Count, a.Count))
		})
	}
	for i := range w.Flips {
		if c := w.Flips[i].Caller(); !slices.Contains(w.Affected, c) {
			w.Affected = append(w.Affected, c)
		}
	}
	slices.Sort(w.Affected)
}
