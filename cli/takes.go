package cli

import (
	"github.com/tulle-mesh/tulle/control/compile"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// takes tries a request on one route with the router of the data plane: control.Config.Takes. The planes do not know each
// other; this is where both are at hand.
func takes(r *model.Route, q *compile.Request) bool {
	t, err := router.Compile(&model.RouteTable{Routes: []model.Route{*r}})
	if err != nil {
		return false
	}
	h := &message.Head{Method: []byte(q.Method), Target: []byte(q.Target), Scheme: []byte("http"), Authority: []byte(q.Host), ContentLength: message.NoLength}
	for _, f := range q.Headers {
		h.Add([]byte(f.Name), []byte(f.Value))
	}
	return t.Match(h) != nil
}
