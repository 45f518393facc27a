package advise

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/model"
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
		r := replay{service: s.Name.String(), was: was, is: is, now: now, known: map[string][2]worlds{}}
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
	was, is *model.Security
	now     int64
	known   map[string][2]worlds // by what is known of entries
}

// worlds answers what is enforced before and after, for an entry. Most entries share it.
func (r *replay) worlds(e *decisions.Entry) (w [2]worlds, err error) {
	var b strings.Builder
	b.WriteString(strconv.FormatBool(e.TCP) + strconv.FormatBool(e.ServerName != "") + e.Labels)
	for _, f := range told(e) {
		fmt.Fprintf(&b, "\x00%d%s", f.Kind, f.Name)
	}
	w, ok := r.known[b.String()]
	if ok {
		return w, nil
	}
	if w[0], err = worldsOf(r.was, e); err != nil {
		return w, err
	}
	if w[1], err = worldsOf(r.is, e); err != nil {
		return w, err
	}
	r.known[b.String()] = w
	return w, nil
}

// entry adds what becomes of one entry.
func (r *replay) entry(e *decisions.Entry, out *WhatIf) error {
	w, err := r.worlds(e)
	if err != nil {
		return err
	}
	f := Flip{Service: r.service, Key: e.Key, Count: e.Count, Last: e.Last, Request: e.Request, Sample: e.Sample}
	if selects(r.was) || selects(r.is) {
		if f.Labels = e.Labels; e.Labels == decisions.Mixed {
			f.Why = append(f.Why, "which of the service's workloads it was")
		}
	}
	first, before := w[0].ask(e, r.now)
	second, after := w[1].ask(e, r.now)
	if !before || !after || first.Authorizer != second.Authorizer {
		f.Why = append(f.Why, w[1].untold...)
		for _, what := range w[0].untold {
			if !slices.Contains(f.Why, what) {
				f.Why = append(f.Why, what)
			}
		}
		if first.Authorizer != second.Authorizer {
			f.Why = append(f.Why, "what an authorizer answers")
		}
	}
	f.Before, f.After = verdict(first.Allowed), verdict(second.Allowed)
	switch {
	case len(f.Why) > 0 && same(w, e, r.now): // whatever it was, it changes nothing
	case len(f.Why) > 0:
		f.By, f.Before, f.After = by(&second), uncertain(f.Before, before), uncertain(f.After, after)
		out.Unknown = append(out.Unknown, f)
	case first.Allowed != second.Allowed:
		f.By = r.why(&second, w[1].whole, e)
		out.Flips = append(out.Flips, f)
	}
	return nil
}

// same reports whether policies that say the same whatever is not known do so before and after the change.
func same(w [2]worlds, e *decisions.Entry, now int64) bool {
	if e.Labels == decisions.Mixed {
		return false
	}
	a, sure := w[0].ask(e, now)
	b, surely := w[1].ask(e, now)
	return sure && surely && a.Allowed == b.Allowed && a.Authorizer == b.Authorizer
}

// ask answers what is decided about an entry, and whether that is so whatever is not known.
func (w *worlds) ask(e *decisions.Entry, now int64) (v authz.Verdict, sure bool) {
	v = ask(w.least, w.whole, e, now)
	most := ask(w.most, w.whole, e, now)
	return v, v.Allowed == most.Allowed && v.Authorizer == most.Authorizer
}

func verdict(allowed bool) string {
	if allowed {
		return decision.Allowed
	}
	return decision.Denied
}

func uncertain(v string, sure bool) string {
	if sure {
		return v
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
func (r *replay) why(v *authz.Verdict, set *authz.Set, e *decisions.Entry) string {
	text := by(v)
	if !v.Absent {
		return text
	}
	a := e.Attributes(r.now)
	if rule, missing := set.Nearest(&a, !e.TCP); rule != nil {
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
