package gateway

import (
	"maps"
	"slices"

	"github.com/tulle-mesh/tulle/model"
)

// wants answers the names of the resources that what is known refers to and the bootstrap does not have, sorted. mu is
// held.
func (g *Gateway) wants() map[model.ResourceKind][]string {
	routes, endpoints, secrets := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, l := range g.listeners {
		for _, v := range []*version{l.now.Load(), l.next} {
			if v == nil {
				continue
			}
			for _, c := range v.all {
				if h := c.model.HTTP; h != nil && h.Routes == nil {
					routes[h.RDS] = true
				}
				if t := c.model.TLS; t != nil {
					wantSecrets(secrets, t.Certificates, t.Validation)
				}
			}
		}
	}
	for n, e := range g.clusters {
		if e.model.Discovery == model.DiscoveryEDS {
			endpoints[n.String()] = true
		}
		if t := e.model.TLS; t != nil {
			wantSecrets(secrets, t.Certificates, t.Validation)
		}
	}
	for _, s := range g.cfg.Bootstrap.Secrets {
		delete(secrets, s.Name)
	}
	return map[model.ResourceKind][]string{
		model.ResourceRoutes: sorted(routes), model.ResourceEndpoints: sorted(endpoints), model.ResourceSecret: sorted(secrets),
	}
}

func wantSecrets(to map[string]bool, certificates []model.SecretRef, v *model.Validation) {
	for _, r := range certificates {
		if r.SDS != "" {
			to[r.SDS] = true
		}
	}
	if v != nil {
		for _, r := range []model.SecretRef{v.Roots, v.CRL} {
			if r.SDS != "" {
				to[r.SDS] = true
			}
		}
	}
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

// Control is where resources are asked for (xds/ads). Want says which names of a kind are wanted from now on; it is called
// when that has changed, and does not wait for the network.
type Control interface {
	Want(kind model.ResourceKind, names []string)
}

// SetControl says where resources are asked for.
func (g *Gateway) SetControl(c Control) {
	g.mu.Lock()
	g.control = c
	g.mu.Unlock()
	g.tellWants()
}

// tellWants asks for what is wanted now. Route tables that nobody wants any more are forgotten.
func (g *Gateway) tellWants() {
	g.wanting.Lock() // one at a time, in order
	defer g.wanting.Unlock()
	g.mu.Lock()
	control, now := g.control, g.wants()
	for name := range g.tables {
		if _, used := slices.BinarySearch(now[model.ResourceRoutes], name); !used {
			delete(g.tables, name)
		}
	}
	g.mu.Unlock()
	if control == nil {
		return
	}
	for _, kind := range []model.ResourceKind{model.ResourceEndpoints, model.ResourceRoutes, model.ResourceSecret} {
		if old, told := g.told[kind]; !told && len(now[kind]) > 0 || told && !slices.Equal(old, now[kind]) {
			g.told[kind] = now[kind]
			control.Want(kind, now[kind])
		}
	}
}
