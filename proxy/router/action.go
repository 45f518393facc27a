package router

import (
	"regexp"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Fault is a compiled model.Fault.
type Fault struct {
	*model.Fault
	headers []field
}

// CompileFault makes a Fault of m, which may be nil; then the answer is nil.
func CompileFault(m *model.Fault) (*Fault, error) {
	if m == nil {
		return nil, nil
	}
	h, err := compileFields(m.Headers, true)
	return &Fault{Fault: m, headers: h}, err
}

// Concerns reports whether the fault is for requests like h.
func (f *Fault) Concerns(h *message.Head) bool {
	for i := range f.headers {
		if !f.headers[i].inHeaders(h) {
			return false
		}
	}
	return true
}

// Allows reports whether the route's CORS allows an origin, as the request names it.
func (r *Route) Allows(origin []byte) bool {
	c := r.Route.CORS
	if c == nil || len(origin) == 0 {
		return false
	}
	for i := range c.Origins {
		o := &c.Origins[i]
		switch n := len(o.Prefix) + len(o.Suffix); {
		case o.Any:
			return true
		case r.origins[i] != nil:
			if r.origins[i].Match(origin) {
				return true
			}
		case o.Wildcard:
			// Scheme and host of an origin are in lower case already (WHATWG URL); nobody else's spelling is believed.
			if len(origin) > n && string(origin[:len(o.Prefix)]) == o.Prefix && string(origin[len(origin)-len(o.Suffix):]) == o.Suffix {
				return true
			}
		case string(origin) == o.Exact:
			return true
		}
	}
	return false
}

// compileActions compiles what the route does besides sending requests on.
func (r *Route) compileActions() (err error) {
	if err = r.compileChanges(); err != nil {
		return err
	}
	if r.Inject, err = CompileFault(r.Route.Fault); err != nil {
		return err
	}
	if c := r.Route.CORS; c != nil {
		r.origins = make([]*regexp.Regexp, len(c.Origins))
		for i := range c.Origins {
			if e := c.Origins[i].Regex; e != "" {
				if r.origins[i], err = anchored(e); err != nil {
					return err
				}
			}
		}
	}
	r.nameBackends()
	return nil
}

// Preflight reports whether h asks, for a page of another origin, whether a request may be made (WHATWG Fetch, section 3.2.2).
func Preflight(h *message.Head) bool {
	return string(h.Method) == "OPTIONS" && len(h.Get("origin")) > 0 && len(h.Get("access-control-request-method")) > 0
}

// methodMatches compares the method. Where a route of the mesh shares with other origins, the method of a preflight is that
// of the request which it asks about, so that a match by method has its own preflights.
func (r *Route) methodMatches(h *message.Head) bool {
	want := r.Route.Match.Method
	if want == "" || string(h.Method) == want {
		return true
	}
	return r.Route.CORS != nil && r.Host == nil && Preflight(h) && string(h.Get("access-control-request-method")) == want
}
