package exchange

import (
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// What routes do besides sending requests on (model/action.go), each in a file of its own: redirect.go, cors.go, fault.go,
// session.go, mirror.go. Here is their order, the one of docs/design/traffic.md.

// actions is what the route's actions do to one exchange.
type actions struct {
	own     own
	shared  shared
	faulty  faulty
	slow    slow
	session session
}

// own is what answers the request here instead of a backend.
type own uint8

const (
	ownNone own = iota
	ownPreflight
	ownAbort
	ownDirect
	ownRedirect
)

// act decides what the route does with the request itself, and reports whether that is all: then no backend is needed.
func (x *Exchange) act(r *router.Route) bool {
	if r.CORS != nil && (x.origin.HTTP == nil || x.origin.HTTP.CORS) && x.share(r) {
		x.own = ownPreflight
		return true
	}
	if f := x.faultOf(r); f != nil {
		x.inject(f)
	}
	switch {
	case x.own != ownNone:
	case r.Direct != nil:
		x.own = ownDirect
	case r.Redirect != nil:
		x.own = ownRedirect
	default:
		x.recall(r)
	}
	return x.own != ownNone
}

// start begins what act has decided, or the first attempt, once an injected delay has passed.
func (x *Exchange) start() {
	if !x.delay() {
		x.proceed()
	}
}

func (x *Exchange) proceed() {
	switch x.own {
	case ownPreflight:
		x.preflight()
	case ownAbort:
		x.abort()
	case ownDirect:
		x.direct(x.route.Direct)
	case ownRedirect:
		x.sendElsewhere(x.route.Redirect)
	default:
		x.mirror()
		if x.cluster != nil && x.cluster.Model().Picker != nil {
			x.gather()
			return
		}
		x.attempt()
	}
}

// present adds to a final response's head what the client is told besides; made: the response was made here.
func (x *Exchange) present(h *message.Head, made bool) {
	if !made {
		x.persist(h)
		x.setCookies(h)
	}
	if x.shared.on {
		x.tellShared(h)
	}
}

// letGo ends what the actions hold of an exchange that is over.
func (x *Exchange) letGo() {
	x.w.cfg.Loop.Disarm(&x.faultTimer)
	x.release(failure.DownstreamGone)
}

// among reports whether chance takes the request into a share of a million.
func (x *Exchange) among(share uint32) bool {
	const million = 1_000_000
	return share >= million || share > 0 && (x.w.random.Uint64()>>32)*million>>32 < uint64(share)
}
