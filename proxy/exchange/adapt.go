package exchange

import (
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// foreign reports whether the endpoint is no workload of the mesh: it is not told what proxies tell each other, and what
// it says in their words is not believed.
func (x *Exchange) foreign() bool { return x.cluster == nil || x.ep != nil && x.ep.Identity() == "" }

// adapt makes of the request's head what the endpoint and the connection of this attempt need; open calls it.
func (x *Exchange) adapt(c upstream.Conn) {
	x.remind()
	if x.said {
		x.tellClass()
	}
	if !x.foreign() {
		x.inform()
	}
	if x.upgrade && x.head.Upgrade != nil {
		x.shake(c)
	}
	if x.origin.HTTP == nil {
		return
	}
	if !x.foreign() && !x.head.Has(fieldHTTP) {
		v := version1
		if x.version == message.HTTP2 {
			v = version2
		}
		x.head.Add(nameHTTP, v)
	}
	if x.route == nil || !x.route.Rewrite.AutoHost || x.ep == nil {
		return
	}
	if name := x.ep.Workload(); name != "" {
		x.newHost(name, x.route.Rewrite.AppendXFHost && x.count <= 1)
	}
}
