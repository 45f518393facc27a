// Package filter runs the filters of a route over a message: what is between the match and the pick. Each
// kind of filter is a package below this one. Nothing is allocated in the steady state and nothing is kept, so
// everything is safe for concurrent use on different messages.
package filter

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/filter/headers"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Request runs the filters that change a request, in order. Call it with the route's filters, then with the
// chosen backend's.
func Request(filters []model.Filter, h *message.Head) {
	for i := range filters {
		if filters[i].Kind == model.FilterRequestHeaders {
			headers.Apply(&filters[i].Headers, h)
		}
	}
}

// Response runs the filters that change a response, in order. Call it with the chosen backend's filters, then
// with the route's.
func Response(filters []model.Filter, h *message.Head) {
	for i := range filters {
		if filters[i].Kind == model.FilterResponseHeaders {
			headers.Apply(&filters[i].Headers, h)
		}
	}
}
