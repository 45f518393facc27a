package exchange

import (
	"bytes"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/filter"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// What foreign routes can do beyond those of the mesh.

// follow does what the route that was found says about the request, before a backend is chosen.
func (x *Exchange) follow(r *router.Route) failure.Reason {
	if x.upgrade && x.origin.HTTP != nil && !x.upgradable() {
		return failure.UpgradeRefused
	}
	if len(r.Hash) > 0 {
		x.takeHash(r.Hash)
	}
	return failure.None
}

// rewrite changes what the backend is told.
func (x *Exchange) rewrite(r *router.Route) {
	w := &r.Rewrite
	if r.Rewrites() && len(x.head.Target) > 0 && x.head.Target[0] == '/' {
		x.rewritePath(r)
	}
	if w.Host != "" {
		x.newHost(w.Host, w.AppendXFHost)
	}
}

// rewritePath changes the path as the route says. The original goes on as x-envoy-original-path.
func (x *Exchange) rewritePath(r *router.Route) {
	t := x.head.Target
	path, rest := t, []byte(nil)
	if i := bytes.IndexByte(t, '?'); i >= 0 {
		path, rest = t[:i], t[i:]
	}
	n := len(x.notes)
	x.notes = append(r.AppendRewritten(x.notes, path), rest...)
	x.head.Remove(fieldOriginalPath)
	x.head.Add(nameOriginalPath, t)
	x.head.Target = x.notes[n:len(x.notes):len(x.notes)]
}

func (x *Exchange) newHost(host string, tell bool) {
	if tell && len(x.head.Authority) > 0 {
		x.head.Add(nameForwardedHost, x.head.Authority)
	}
	x.head.Authority = x.keepString(host)
}

const fieldOriginalPath = "x-envoy-original-path"

var (
	nameOriginalPath  = []byte(fieldOriginalPath)
	nameForwardedHost = []byte("x-forwarded-host")
	nameLocation      = []byte("location")
)

// direct answers with what the route says.
func (x *Exchange) direct(d *model.Direct) {
	x.details = "direct_response"
	h := &x.w.reply.head
	h.Reset()
	h.Version, h.Status = message.HTTP11, d.Status
	if len(d.Body) > 0 {
		h.Add(nameContentType, valuePlain)
	}
	x.made(h, d.Body)
}

// redirect answers with the path that was made of the request's.
func (x *Exchange) redirect() {
	x.details = "path_normalized_redirect"
	h := &x.w.reply.head
	h.Reset()
	h.Version, h.Status = message.HTTP11, 307
	h.Add(nameLocation, x.head.Target)
	x.made(h, nil)
}

// made sends a response that is no failure and was made here, and ends the exchange.
func (x *Exchange) made(h *message.Head, body []byte) {
	x.begun, x.over = true, true
	x.rec.Status = h.Status
	x.rec.Head = x.w.cfg.Loop.Now()
	h.ContentLength = int64(len(body))
	if x.route != nil {
		x.filterResponse(h)
	}
	if x.origin.HTTP != nil {
		x.dress(h, true)
	}
	head := x.rec.Method == "HEAD" || h.Status == 204 || h.Status == 304
	x.present(h, true)
	x.keepForLog(h, false)
	x.client.Head(h, head || len(body) == 0)
	if !head && len(body) > 0 {
		x.rec.ResponseBytes = int64(len(body))
		n := x.client.Data(body, true)
		if n < len(body) && !x.finished {
			x.hold(body[n:], true)
			return // settle ends it
		}
	}
	x.finish()
}

// filterResponse runs the route's filters over a response, those that ran first on the request last.
func (x *Exchange) filterResponse(h *message.Head) {
	if x.backend != nil {
		filter.Response(x.backend.Filters, h)
	}
	filter.Response(x.route.Filters, h)
	if f := hostFilters(x.route); f != nil {
		filter.Response(f, h)
	}
}

// named answers the cluster that a request field names, without allocating for the one that was named last.
func (x *Exchange) named(field string) model.PortName {
	v := x.headerToHash(field)
	if string(v) != x.w.named.Service.Name {
		x.w.named = model.Free(string(v))
	}
	return x.w.named
}

var (
	nameContentType = []byte("content-type")
	valuePlain      = []byte("text/plain")
)

// hostFilters answers the filters of the virtual host that r belongs to.
func hostFilters(r *router.Route) []model.Filter {
	if r.Host == nil {
		return nil
	}
	return r.Host.Filters
}
