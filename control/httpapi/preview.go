package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// What objects would do before they are stored: what they contradict, and what proxies would be told. It is worked out by the
// compiler that is in force, which may be a moment behind the store.

// preview fills in what the objects of a request would do, and refuses contradictions if the request is strict.
func (a *API) preview(ctx context.Context, req *ApplyRequest, docs []decode.Document, result *ApplyResult) error {
	if a.cfg.Compiler == nil {
		return nil
	}
	a.catchUp(ctx)
	var edits []compile.Edit
	byName := map[string]*decode.Document{}
	for i := range docs {
		byName[fullName(&docs[i])] = &docs[i]
		if action := result.Objects[i].Action; action != "unchanged" && action != "absent" {
			edits = append(edits, compile.Edit{Object: docs[i].Object, Delete: req.Delete})
		}
	}
	before := a.cfg.Compiler()
	after := before.Edited(edits)
	names := before.Names(a.cfg.Registry.Services(), edits)
	var found []compile.Conflict
	for i := 0; i < len(names) && !req.Delete; i++ {
		found = append(found, after.Conflicts(names[i], a.cfg.Takes)...)
	}
	for _, c := range compile.Together(found) {
		if d := concerns(&c, byName); d != nil {
			e := d.Errorf(c.Place(fullName(d)), "")
			result.Conflicts = append(result.Conflicts, Contradiction{File: e.File, Line: e.Line, Object: e.Object, Conflict: c})
		}
	}
	if !req.Delete {
		stored, err := a.storedServices(ctx)
		if err != nil {
			return err
		}
		with := before.Edited(append(stored, edits...))
		result.Warnings = append(warnings(with, docs), a.httpOnly(with, docs)...)
	}
	result.Broken = broken(before, before.Edited(a.final(edits)), func(object string) bool { return byName[object] != nil })
	if req.DryRun {
		result.Changes = compile.Differences(before, after, names)
		for i := range result.Changes {
			a.callers(&result.Changes[i])
		}
	}
	if req.Strict {
		return refuse(result.Conflicts)
	}
	return nil
}

// storedServices answers the Services that are stored, as edits: the registry may be a moment behind the store.
func (a *API) storedServices(ctx context.Context) (out []compile.Edit, err error) {
	objects, _, err := a.cfg.Store.List(ctx, "Service", "")
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		s := &v1alpha1.Service{}
		if json.Unmarshal(o.Value, s) == nil {
			out = append(out, compile.Edit{Object: s})
		}
	}
	return out, nil
}

// warnings answers what the documents refer to in vain once all of them are in force.
func warnings(c compile.Compiler, docs []decode.Document) (out []decode.Error) {
	for i := range docs {
		for _, n := range c.Notes(docs[i].Object) {
			if len(out) < decode.MaxErrors {
				out = append(out, docs[i].Errorf(n.Path, "%s", n.Message))
			}
		}
	}
	return out
}

// httpOnly warns of denials that make ports HTTP and nothing else.
func (a *API) httpOnly(c compile.Compiler, docs []decode.Document) (out []decode.Error) {
	every, speaks := a.spoken()
	for i := range docs {
		for _, n := range c.HTTPOnly(docs[i].Object, every, speaks) {
			out = append(out, docs[i].Errorf(n.Path, "%s", n.Message))
		}
	}
	return out
}

// spoken answers all services, and what their workloads' proxies have learned that ports speak.
func (a *API) spoken() (every []model.ServiceName, speaks func(model.PortName) model.Protocol) {
	for _, s := range a.cfg.Registry.Services() {
		every = append(every, s.Name)
	}
	learned := map[model.PortName]model.Protocol{}
	for _, w := range a.cfg.Registry.Workloads() {
		for _, p := range w.Ports {
			if p.Learned != model.ProtocolUnknown {
				learned[model.PortName{Service: model.ServiceName{Namespace: w.Namespace, Name: w.Service}, Port: p.Port}] = p.Learned
			}
		}
	}
	return every, func(n model.PortName) model.Protocol { return learned[n] }
}

// final leaves out Services that are deleted and exist by their workloads all the same.
func (a *API) final(edits []compile.Edit) []compile.Edit {
	return slices.DeleteFunc(slices.Clone(edits), func(e compile.Edit) bool {
		s, ok := e.Object.(*v1alpha1.Service)
		return ok && e.Delete && slices.ContainsFunc(a.cfg.Registry.Workloads(), func(w *registry.Workload) bool {
			return w.Namespace == s.Namespace && (w.Service == s.Name || w.Version != "" && w.Service+"-"+w.Version == s.Name)
		})
	})
}

// broken answers what objects refer to in vain from now on, but those that are edited themselves.
func broken(before, after compile.Compiler, edited func(object string) bool) (out []Reference) {
	was := references(before)
	for _, r := range references(after) {
		if !edited(r.Object) && !slices.Contains(was, r) && len(out) < decode.MaxErrors {
			out = append(out, r)
		}
	}
	return out
}

// fullName answers "HTTPRoute/default/cart".
func fullName(d *decode.Document) string {
	return d.Kind.Name + "/" + d.Object.GetNamespace() + "/" + d.Object.GetName()
}

// concerns answers the document that a conflict is about, the losing one if there are two; nil: it was there before.
func concerns(c *compile.Conflict, docs map[string]*decode.Document) *decode.Document {
	for _, object := range c.Objects() {
		if d := docs[object]; d != nil {
			return d
		}
	}
	return nil
}

// refuse answers an error that names every tie, and every route that another kind puts out of effect.
func refuse(list []Contradiction) error {
	var errs []decode.Error
	for i := range list {
		if c := &list[i]; c.Refused() && len(errs) < decode.MaxErrors {
			errs = append(errs, decode.Error{File: c.File, Line: c.Line, Object: c.Object, Message: c.Conflict.String()})
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return &Error{Status: http.StatusConflict, Message: "nothing was stored: leave --strict out to store it all the same", Errors: errs}
}

func (a *API) callers(c *compile.Change) {
	if a.cfg.Callers == nil {
		return
	}
	if c.Kind == "security" {
		return // it is enforced by the workloads themselves, whoever calls
	}
	if n, caller, err := model.ParsePortNameFor(c.Name); err == nil {
		c.Callers = a.cfg.Callers(n, caller)
	}
}

// tell fills in an object before and after.
func tell(o *Applied, before, after []byte) {
	o.Before, o.After = written(before), written(after)
}

// written answers an object as a user writes it: without what the control plane adds to it.
func written(text []byte) json.RawMessage {
	var m map[string]any
	if text == nil || json.Unmarshal(text, &m) != nil {
		return nil
	}
	if meta, ok := m["metadata"].(map[string]any); ok {
		for _, own := range []string{"uid", "generation", "creationTimestamp", "resourceVersion"} {
			delete(meta, own)
		}
	}
	delete(m, "status")
	out, err := json.Marshal(m)
	if err != nil {
		return nil
	}
	return out
}

// policies fills in what policies say about a port and its routes.
func (a *API) policies(name model.PortName, out *RouteTable) {
	if a.cfg.Compiler == nil {
		return
	}
	c := a.cfg.Compiler()
	out.Policies = c.ServiceTreatment(name).Values()
	add := func(r *model.Route) {
		if v := c.RouteValues(r); len(v) > 0 {
			if out.RoutePolicies == nil {
				out.RoutePolicies = map[string][]compile.Value{}
			}
			out.RoutePolicies[fmt.Sprintf("%s[%d]", r.Name, r.Rule)] = v
		}
	}
	for i := range out.Routes {
		add(&out.Routes[i])
	}
	for _, r := range out.Relay {
		add(&model.Route{Name: r.Name, Rule: r.Rule})
	}
}

// serveConflicts answers what of the stored objects contradicts each other, and which policies are not in force.
func (a *API) serveConflicts(r *http.Request) (any, error) {
	if a.cfg.Compiler == nil {
		return nil, missing("conflicts")
	}
	out := Conflicts{Conflicts: []compile.Conflict{}, Policies: []PolicyNote{}, References: []Reference{}}
	c := a.cfg.Compiler()
	var found []compile.Conflict
	for _, n := range a.ports(r) {
		found = append(found, c.Conflicts(n, a.cfg.Takes)...)
	}
	out.Conflicts = append(out.Conflicts, compile.Together(found)...)
	stored, err := a.storedServices(r.Context())
	if err != nil {
		return nil, err
	}
	out.References = references(c.Edited(stored))
	for _, p := range c.Index.Policies() {
		for _, t := range c.PolicyStatus(p.Object) {
			for _, cond := range t.Conditions {
				if cond.Type == "Accepted" && !cond.True || cond.Type == "Portable" && !cond.True {
					out.Policies = append(out.Policies, PolicyNote{Policy: "TrafficPolicy/" + p.Object.Namespace + "/" + p.Object.Name,
						Target: t.Ref.String(), Reason: cond.Reason, Message: cond.Message})
				}
			}
		}
	}
	for _, o := range c.Index.Externals() {
		if _, accepted := c.ExternalStatus(o); !accepted.True {
			out.References = append(out.References, Reference{Object: v1alpha1.ExternalKind + "/" + o.Namespace + "/" + o.Name,
				Note: compile.Note{Path: "spec.hosts", Message: accepted.Message, Reason: accepted.Reason}})
		}
	}
	every, speaks := a.spoken()
	for _, p := range c.Index.SecurityPolicies() {
		for _, n := range c.HTTPOnly(p.Object, every, speaks) {
			out.References = append(out.References, Reference{Object: v1alpha1.KindOf(p.Object).Name + "/" + p.Object.GetNamespace() + "/" + p.Object.GetName(), Note: n})
		}
		for _, n := range compile.Expressions(p.Object) {
			out.Policies = append(out.Policies, PolicyNote{Policy: v1alpha1.KindOf(p.Object).Name + "/" + p.Object.GetNamespace() + "/" + p.Object.GetName(),
				Target: n.Path, Reason: "Invalid", Message: n.Message})
		}
	}
	return out, r.Context().Err()
}

// references answers what stored objects refer to in vain. What is wrong with the targets of policies is told with the policies.
func references(c compile.Compiler) []Reference {
	out := []Reference{}
	add := func(o v1alpha1.Object) {
		for _, n := range c.Notes(o) {
			if _, policy := o.(*v1alpha1.TrafficPolicy); !policy || !strings.HasPrefix(n.Path, "spec.targetRefs") {
				out = append(out, Reference{v1alpha1.KindOf(o).Name + "/" + o.GetNamespace() + "/" + o.GetName(), n})
			}
		}
	}
	for _, r := range c.Index.Routes() {
		add(r.Object)
	}
	for _, p := range c.Index.Policies() {
		add(p.Object)
	}
	for _, o := range c.Index.Filters() {
		add(o)
	}
	for _, p := range c.Index.SecurityPolicies() {
		add(p.Object)
	}
	return out
}
