package gateway

import (
	"fmt"
	"reflect"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/admission"
	"github.com/tulle-mesh/tulle/proxy/chain"
	"github.com/tulle-mesh/tulle/proxy/downstream"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/observe"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// filterChain is a chain that can serve. Versions of a listener in which it is the same share it.
type filterChain struct {
	model   *model.Chain
	retired atomic.Bool         // no version in force has it: its connections drain
	tls     *mtls.ServerContext // nil: plain
	label   string              // of its session tickets
	logs    *observe.Logs
	to      destination        // HTTP
	config  *downstream.Config // HTTP
	gate    *admission.Gate    // nil: it takes everything
	fault   *router.Fault      // HTTP: injected where routes say nothing; nil: none
}

// chains are those of one version of a listener.
type chains struct {
	table *chain.Table
	all   []*filterChain // as in the model, then the default one
	rest  *filterChain   // the default; nil: none
	logs  *observe.Logs  // of what no chain has served
	swaps []swap         // at the moment when the version comes in force
}

// swap is an inline route table that has changed while its chain has not.
type swap struct {
	to  *table
	new *router.Table
}

// find answers the chain that serves c, nil if there is none.
func (v *chains) find(c *chain.Conn) *filterChain {
	if i := v.table.Find(c); i >= 0 {
		return v.all[i]
	}
	return v.rest
}

// version makes what serves m; chains that are the same in the version before are taken from there.
func (g *Gateway) version(m *model.Listener, before *version) (*version, error) {
	v := &version{model: m}
	matches := make([]model.ChainMatch, len(m.Chains))
	for i := range m.Chains {
		matches[i] = m.Chains[i].Match
	}
	var err error
	if v.table, err = chain.Compile(matches); err != nil {
		return nil, g.aboutListener(m.Name, ".filter_chains", fmt.Errorf("listener %s: %w", m.Name, err))
	}
	if v.logs, err = g.files.Logs(m.AccessLogs); err != nil {
		return nil, g.aboutListener(m.Name, ".access_log", fmt.Errorf("listener %s: %w", m.Name, err))
	}
	same := before != nil && sameFilters(m, before.model)
	for i := range m.Chains {
		c, err := v.chain(g, &m.Chains[i], before, same)
		if err != nil {
			return nil, g.aboutListener(m.Name, fmt.Sprintf(".filter_chains[%d]", i), fmt.Errorf("listener %s: filter chain %d: %w", m.Name, i, err))
		}
		v.all = append(v.all, c)
	}
	if m.Default != nil {
		if v.rest, err = v.chain(g, m.Default, before, same); err != nil {
			return nil, g.aboutListener(m.Name, ".default_filter_chain", fmt.Errorf("listener %s: default filter chain: %w", m.Name, err))
		}
		v.all = append(v.all, v.rest)
	}
	return v, nil
}

// sameFilters reports whether connections come to the chains in the same way.
func sameFilters(a, b *model.Listener) bool {
	return reflect.DeepEqual(a.ProxyProtocol, b.ProxyProtocol) && a.OriginalDestination == b.OriginalDestination
}

// chain makes what serves m, or answers that of the version before if nothing but its route table differs.
func (v *version) chain(g *Gateway, m *model.Chain, before *version, same bool) (*filterChain, error) {
	if same {
		if c := before.like(m); c != nil {
			return c, v.reroute(c, m)
		}
	}
	c := &filterChain{model: m}
	var err error
	if m.TLS != nil {
		if c.tls, err = mtls.NewServerContext(m.TLS, g.secrets); err != nil {
			return nil, err
		}
		c.label = ticketLabel(v.model.Name, m.TLS)
		g.giveTickets(c)
	}
	g.guard(c)
	if m.TCP != nil {
		c.logs, err = g.files.Logs(m.TCP.AccessLogs)
		return c, err
	}
	if c.logs, err = g.files.Logs(m.HTTP.AccessLogs); err != nil {
		return nil, err
	}
	c.config = downstream.ConfigOf(m.HTTP)
	if c.fault, err = router.CompileFault(m.HTTP.Fault); err != nil {
		return nil, err
	}
	c.to.g = g
	c.to.table, err = g.tableOf(m.HTTP)
	return c, err
}

// like answers the chain that is the same as m but for an inline route table, nil if there is none.
func (v *version) like(m *model.Chain) *filterChain {
	plain := withoutRoutes(m)
	for _, c := range v.all {
		if !c.retired.Load() && reflect.DeepEqual(withoutRoutes(c.model), plain) {
			return c
		}
	}
	return nil
}

// withoutRoutes answers m with an empty table in place of an inline one.
func withoutRoutes(m *model.Chain) *model.Chain {
	if m.HTTP == nil || m.HTTP.Routes == nil {
		return m
	}
	chain, http := *m, *m.HTTP
	http.Routes = &model.RouteTable{}
	chain.HTTP = &http
	return &chain
}

// reroute notes the table that c gets when v comes in force.
func (v *version) reroute(c *filterChain, m *model.Chain) error {
	if m.HTTP == nil || m.HTTP.Routes == nil {
		return nil
	}
	if now := c.to.table.now.Load(); now != nil && reflect.DeepEqual(now.Model, m.HTTP.Routes) {
		return nil
	}
	t, err := router.Compile(m.HTTP.Routes)
	if err == nil {
		v.swaps = append(v.swaps, swap{c.to.table, t})
	}
	return err
}
