package v1alpha1

import (
	"fmt"
	"net/netip"
	"strings"

	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// TLSRoute and its rule are those of Gateway API. The application's own TLS passes through unread; its server name says
// where to.
type (
	TLSRoute     = gateway.TLSRoute
	TLSRouteRule = gateway.TLSRouteRule
	Hostname     = gateway.Hostname
)

const maxHostnames = 1024

// defaultTLSRoute writes out the schema's defaults.
func defaultTLSRoute(r *TLSRoute) {
	for i := range r.Spec.Rules {
		for j := range r.Spec.Rules[i].BackendRefs {
			defaultBackend(&r.Spec.Rules[i].BackendRefs[j])
		}
	}
}

func (c *check) tlsRoute(r *TLSRoute) {
	c.relayed(r, &r.Spec.CommonRouteSpec)
	if n := len(r.Spec.Hostnames); n < 1 || n > maxHostnames {
		c.fail("spec.hostnames", "has %d entries: write 1 to %d server names", n, maxHostnames)
	}
	seen := map[string]bool{}
	for i, h := range r.Spec.Hostnames {
		at, name := fmt.Sprintf("spec.hostnames[%d]", i), string(h)
		_, ip := netip.ParseAddr(name)
		switch {
		case ip == nil:
			c.fail(at, "%q is an address, and no client names one as its server: write a DNS name", name)
		case !subdomain(strings.TrimPrefix(name, "*.")):
			c.fail(at, "%q is not a server name: write for example db.example or *.db.example, in lower case", name)
		case seen[name]:
			c.fail(at, "%q is named twice", name)
		}
		seen[name] = true
	}
}
