package proxy

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/live"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/xds/client"
)

// The parts do not know each other; these small types say what one offers in the words that another asks in.

// source is xds/client as live.Source.
type source struct{ c *client.Client }

func (s source) Subscribe(k live.Kind, name string)   { s.c.Subscribe(client.Kind(k), name) }
func (s source) Unsubscribe(k live.Kind, name string) { s.c.Unsubscribe(client.Kind(k), name) }

// directory is live as listener.Directory.
type directory struct{ l *live.Live }

func (d directory) Port(a netip.AddrPort) (listener.Port, bool) {
	p, known := d.l.Port(a)
	if p == nil {
		return nil, known
	}
	return p, known
}

func (d directory) ByAddress(on loop.Loop, a netip.AddrPort, then func(listener.Port, failure.Reason)) {
	d.l.ByAddress(on, a, func(p *live.Port, why failure.Reason) {
		if p == nil {
			then(nil, why)
			return
		}
		then(p, why)
	})
}

// identity is svid.Source as mtls.Source.
type identity struct{ s svid.Source }

func (i identity) Identity() *mtls.Identity {
	c := i.s.Current()
	return &mtls.Identity{Certificate: c.Certificate, Roots: c.Roots, Trust: c.Trust}
}

// Now is part of svid.Timed.
func (i identity) Now() time.Time {
	if t, ok := i.s.(svid.Timed); ok {
		return t.Now()
	}
	return time.Now()
}

// names is live as dns.Names.
type names struct{ l *live.Live }

// errUnavailable: nobody can tell now whether the name exists.
var errUnavailable = errors.New("the control plane cannot be asked")

func (n names) Lookup(ctx context.Context, name model.ServiceName) (v4, v6 netip.Addr, known bool, err error) {
	s, why := n.l.Find(ctx, name)
	switch {
	case why != failure.None:
		return v4, v6, false, errUnavailable
	case s == nil:
		return v4, v6, false, nil
	}
	return s.VIP4, s.VIP6, true, nil
}
