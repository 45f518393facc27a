package control

import (
	"context"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/model"
)

// compose starts the parts in the order of their needs and plugs them together. The API comes last: when it
// answers, everything does.
func (p *Plane) compose(ctx context.Context) error {
	tokens := token.New(p.store, p.ca.RootsDER()[0])
	admin, err := p.adminToken()
	if err != nil {
		return err
	}
	api := httpapi.New(httpapi.Config{Store: p.store, Registry: empty{}, Tokens: tokens, Admin: admin, Log: p.log, Now: time.Now, Info: p.info()})
	local, err := p.listenUnix(APISocket(p.cfg.DataDir))
	if err != nil {
		return err
	}
	p.serve(api.RemoteServer(), p.http)
	p.serve(api.LocalServer(), local)
	return nil
}

// empty is a registry of nobody.
type empty struct{}

func (empty) Services() []*registry.Service                       { return nil }
func (empty) Service(model.ServiceName) (*registry.Service, bool) { return nil, false }
func (empty) ByAddress(netip.Addr) (*registry.Service, bool)      { return nil, false }
func (empty) Endpoints(model.PortName) (*model.Endpoints, bool)   { return nil, false }
func (empty) Workloads() []*registry.Workload                     { return nil }
func (empty) Watch(func(registry.Change)) (stop func())           { return func() {} }
