package httpapi

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/advise"
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/control/decisions"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/model"
)

// How far back is looked at what was let in and what not.
const (
	defaultSince = 24 * time.Hour
	maxSince     = decisions.Expires
)

// WhatIfRequest asks what a change of policies would let in or refuse that it does not now. Files are held to be applied, and
// Deleted ("AuthorizationPolicy/default/cart") to be gone.
type WhatIfRequest struct {
	Files     []File        `json:"files,omitempty"`
	Deleted   []string      `json:"deleted,omitempty"` // "KIND/NAME" of Namespace, or "KIND/NAMESPACE/NAME"
	Namespace string        `json:"namespace,omitempty"`
	Since     time.Duration `json:"since,omitempty"`
}

// serveSuggest proposes policies from what was let in.
func (a *API) serveSuggest(r *http.Request) (any, error) {
	if a.cfg.Decisions == nil || a.cfg.Compiler == nil {
		return nil, missing("what was let in")
	}
	list, err := a.recorded(r)
	if err != nil {
		return nil, err
	}
	hosts, _ := strconv.ParseBool(r.URL.Query().Get("hosts"))
	out, err := advise.Suggest(list, a.cfg.Compiler(), advise.Options{Hosts: hosts, Now: a.cfg.Now().Unix()})
	if err != nil {
		return nil, bad("%v", err)
	}
	if out == nil {
		out = []advise.Suggestion{}
	}
	return out, nil
}

// recorded answers what was recorded of the services that r names, for as long as it says.
func (a *API) recorded(r *http.Request) ([]decisions.Service, error) {
	since, err := duration(r, "since", defaultSince, maxSince)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	namespace, service := q.Get("namespace"), q.Get("service")
	list := a.cfg.Decisions(func(n model.ServiceName) bool { return called(n, service, namespace) }, a.cfg.Now().Add(-since))
	if len(list) == 0 && service != "" && !a.has(service, namespace) {
		return nil, &Error{Status: http.StatusNotFound, Message: fmt.Sprintf("there is no Service %s: 'tulle get services' lists them", service)}
	}
	return list, nil
}

// called reports whether a service is the one that is meant by "reviews" or "reviews.shop"; "": any.
func called(n model.ServiceName, service, namespace string) bool {
	return (namespace == "" || n.Namespace == namespace) && (service == "" || n.Name == service || n.String() == service)
}

// has reports whether there is such a service.
func (a *API) has(service, namespace string) bool {
	return slices.ContainsFunc(a.cfg.Registry.Services(), func(s *registry.Service) bool { return called(s.Name, service, namespace) })
}

// servePlaintext answers who has come in plaintext, and would be refused where ports were strict.
func (a *API) servePlaintext(r *http.Request) (any, error) {
	if a.cfg.Decisions == nil || a.cfg.Compiler == nil {
		return nil, missing("who has come in plaintext")
	}
	list, err := a.recorded(r)
	if err != nil {
		return nil, err
	}
	places := map[netip.Addr][]string{}
	for _, w := range a.cfg.Registry.Workloads() {
		if at := w.Address.Addr().Unmap(); at.IsValid() && !at.IsLoopback() {
			places[at] = append(places[at], w.Key())
		}
	}
	out := advise.Strict(list, a.cfg.Compiler(), func(at netip.Addr) []string { return places[at.Unmap()] })
	if out == nil {
		out = []advise.Exposed{}
	}
	return out, nil
}

// serveWhatIf replays what was recorded.
func (a *API) serveWhatIf(r *http.Request) (any, error) {
	var req WhatIfRequest
	if err := read(r, &req); err != nil {
		return nil, err
	}
	if a.cfg.Decisions == nil || a.cfg.Compiler == nil {
		return nil, missing("what was let in")
	}
	edits, err := a.whatIf(r, &req)
	if err != nil {
		return nil, err
	}
	if req.Since <= 0 || req.Since > maxSince {
		req.Since = maxSince
	}
	now := a.cfg.Now()
	before := a.cfg.Compiler()
	list := a.cfg.Decisions(func(model.ServiceName) bool { return true }, now.Add(-req.Since))
	out, err := advise.Replay(list, before, before.Edited(a.final(edits)), now.Unix())
	if err != nil {
		return nil, bad("%v", err)
	}
	return out, nil
}

// whatIf answers the change that is asked about.
func (a *API) whatIf(r *http.Request, req *WhatIfRequest) (edits []compile.Edit, err error) {
	var docs []decode.Document
	if len(req.Files) > 0 { // otherwise something is deleted, and nothing else
		if docs, err = decodeAll(req.Files); err != nil {
			return nil, err
		}
	}
	for i := range docs {
		edits = append(edits, compile.Edit{Object: docs[i].Object})
	}
	for _, s := range req.Deleted {
		kind, namespace, name, err := parseObject(s, req.Namespace)
		if err != nil {
			return nil, err
		}
		key, k, err := objectKey(kind, namespace, name)
		if err != nil {
			return nil, err
		}
		if _, err := a.cfg.Store.Get(r.Context(), key); err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		o := k.New()
		m := v1alpha1.Meta(o)
		m.Namespace, m.Name = key.Namespace, key.Name
		edits = append(edits, compile.Edit{Object: o, Delete: true})
	}
	if len(edits) == 0 {
		return nil, bad("nothing is changed: name files, or what is to be deleted")
	}
	return edits, nil
}

// parseObject reads "KIND/NAME" or "KIND/NAMESPACE/NAME".
func parseObject(s, namespace string) (kind, in, name string, err error) {
	parts := strings.Split(s, "/")
	switch len(parts) {
	case 2:
		if namespace == "" {
			namespace = v1alpha1.DefaultNamespace
		}
		return parts[0], namespace, parts[1], nil
	case 3:
		return parts[0], parts[1], parts[2], nil
	}
	return "", "", "", bad("%q names no object: write KIND/NAME, such as authorizationpolicy/cart", s)
}
