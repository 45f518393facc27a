package httpapi

import (
	"cmp"
	"net/http"
	"time"

	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// AuthzCheck asks what the proxies of a service would decide. Files are held to be applied.
type AuthzCheck struct {
	Files []File `json:"files,omitempty"`
	compile.Question
}

// AuthzAnswer is what they would: one decision, or one for each kind of workload where labels decide.
type AuthzAnswer struct {
	Allowed   bool               `json:"allowed"` // by all of them
	Decisions []compile.Decision `json:"decisions"`
}

// serveAuthzCheck answers before the fact.
func (a *API) serveAuthzCheck(r *http.Request) (any, error) {
	var req AuthzCheck
	if err := read(r, &req); err != nil {
		return nil, err
	}
	if a.cfg.Compiler == nil {
		return nil, missing("what policies decide")
	}
	edits, err := a.storedServices(r.Context())
	if err != nil {
		return nil, err
	}
	if len(req.Files) > 0 {
		docs, err := decodeAll(req.Files)
		if err != nil {
			return nil, err
		}
		for i := range docs {
			edits = append(edits, compile.Edit{Object: docs[i].Object})
		}
	}
	q := &req.Question
	q.TrustDomain = a.cfg.Info.TrustDomain
	if q.Now == 0 {
		q.Now = a.cfg.Now().Unix()
	}
	q.Revoked = a.revoked
	return Answer(a.cfg.Compiler().Edited(edits), q, a.workloads())
}

// Answer asks a compiler.
func Answer(c compile.Compiler, q *compile.Question, workloads []compile.Workload) (*AuthzAnswer, error) {
	list, err := c.Decide(q, workloads)
	if err != nil {
		return nil, bad("%v", err)
	}
	out := &AuthzAnswer{Allowed: true, Decisions: list}
	for _, d := range list {
		out.Allowed = out.Allowed && d.Allowed
	}
	return out, nil
}

// workloads answers all that there are.
func (a *API) workloads() (out []compile.Workload) {
	for _, w := range a.cfg.Registry.Workloads() {
		out = append(out, compile.Workload{Service: model.ServiceName{Namespace: w.Namespace, Name: w.Service}, Account: w.ServiceAccount, Labels: model.LabelsOf(w.Labels)})
	}
	return out
}

// revoked is compile.Question.Revoked. A single certificate that was revoked says nothing about its identity.
func (a *API) revoked(id string) string {
	if a.cfg.Trust == nil {
		return ""
	}
	for _, r := range a.cfg.Trust.Revoked() {
		if r.Identity != id {
			continue
		}
		why := ""
		if r.Reason != "" {
			why = " (" + r.Reason + ")"
		}
		return "revoked at " + r.At.Format(time.RFC3339) + why + ", so its handshakes fail: 'tulle cert restore " + id + "' takes that back"
	}
	return ""
}

// AuthzOffline answers req as if its files were all that is stored. A Service that they do not have is taken to have the port
// that is asked for.
func AuthzOffline(req *AuthzCheck) (*AuthzAnswer, error) {
	docs, err := decodeAll(req.Files)
	if err != nil {
		return nil, err
	}
	var edits []compile.Edit
	for i := range docs {
		edits = append(edits, compile.Edit{Object: docs[i].Object})
	}
	name, err := req.Service()
	if err != nil {
		return nil, bad("%v", err)
	}
	var services compile.Services = nobody{}
	if !(compile.Compiler{Index: compile.NewIndex(nil), Services: services}).Edited(edits).Leaves(&req.Question) {
		services = alone{&registry.Service{Service: model.Service{Name: name, Ports: []model.ServicePort{{Port: cmp.Or(req.Port, 80)}}}}}
	}
	return Answer(compile.Compiler{Index: compile.NewIndex(nil), Services: services}.Edited(edits), &req.Question, nil)
}

// nobody is no service.
type nobody struct{}

func (nobody) Services() []*registry.Service { return nil }

func (nobody) Service(model.ServiceName) (*registry.Service, bool) { return nil, false }

// alone is a service where there is no other.
type alone struct{ one *registry.Service }

func (a alone) Services() []*registry.Service { return []*registry.Service{a.one} }

func (a alone) Service(n model.ServiceName) (*registry.Service, bool) { return a.one, n == a.one.Name }
