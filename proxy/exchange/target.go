package exchange

import (
	"bytes"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/pool"
	"github.com/tulle-mesh/tulle/proxy/proxyproto"
)

// targetOf answers where the connection to a picked endpoint goes, and what is spoken on it.
func (x *Exchange) targetOf(ep *cluster.Endpoint) pool.Target {
	m := ep.Model()
	if m.Identity != "" {
		t := pool.MeshTarget(m)
		t.Shape(x.cluster.Model(), x.breaker)
		return t
	}
	c := x.cluster.Model()
	t := pool.Target{Kind: pool.HTTP1, Address: m.Address, Cluster: c, Breaker: x.breaker}
	switch v := c.Upstream.Version; {
	case v == model.UpstreamHTTP2, v == model.UpstreamDownstream && x.version == message.HTTP2:
		t.Kind = pool.H2C
	case v == model.UpstreamAuto:
		t.Kind = pool.Auto
	}
	if c.SendProxy != 0 {
		t.Header = proxyproto.Out(c.SendProxy, x.origin.Remote, x.origin.Wanted)
	}
	if s := x.cluster.TLS(); s != nil {
		t.TLS = s
		if s.PerHost() {
			t.Host = string(hostOf(x.head.Authority))
		}
	}
	return t
}

// hostOf takes the port off an authority.
func hostOf(a []byte) []byte {
	if i := bytes.LastIndexByte(a, ':'); i >= 0 && bytes.IndexByte(a[i:], ']') < 0 {
		a = a[:i]
	}
	return bytes.Trim(a, "[]")
}
