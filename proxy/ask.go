package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/live"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/xds/extauthz"
	"github.com/tulle-mesh/tulle/xds/extproc"
	"github.com/tulle-mesh/tulle/xds/ratelimit"
)

// askers are who asks services of the mesh on the way of a request: rate-limit services, external authorizers and endpoint
// pickers. They are few: those that limits and policies of the workload's own ports name, and those of the pools that it calls.
type askers struct {
	control *ratelimit.Client // the control plane

	mu     sync.Mutex
	closed bool
	others map[model.PortName]*asker
}

// asker asks one service of the mesh, as this workload, over one connection to one of its endpoints' proxies at a time.
type asker struct {
	p      *Proxy
	name   model.PortName
	known  chan struct{} // closed when port or why is
	port   *live.Port
	why    failure.Reason
	conn   *grpc.ClientConn
	client *ratelimit.Client
	picks  *extproc.Client
	web    *http.Transport
	word   *extauthz.Client // about what may pass
	told   atomic.Int64     // Unix second of the last line in the log
}

// maxAskers is how many services are asked at most.
const maxAskers = 16

// ask asks the control plane, or a rate-limit service of the mesh: admission.Config.Ask.
func (p *Proxy) ask(q *model.RateQuestion, then func(*model.RateAnswer, error)) bool {
	if q.Cluster == (model.PortName{}) {
		return p.asking.control.Ask(q, then)
	}
	a := p.asker(q.Cluster)
	return a != nil && a.client.Ask(q, then)
}

// pick asks an endpoint picker of the mesh: exchange.Config.Pick.
func (p *Proxy) pick(q *model.PickQuestion, then func(*model.PickAnswer, error)) bool {
	a := p.asker(q.Picker)
	return a != nil && a.picks.Pick(q, then)
}

// again is how long a service that cannot be connected to is left alone: not for long, since requests wait for what it says.
func again() grpc.ConnectParams {
	return grpc.ConnectParams{MinConnectTimeout: 5 * time.Second,
		Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}}
}

// asker answers who asks a service, made if it is asked for the first time; nil: nobody can.
func (p *Proxy) asker(name model.PortName) *asker {
	all := &p.asking
	all.mu.Lock()
	defer all.mu.Unlock()
	if a := all.others[name]; a != nil || all.closed || len(all.others) >= maxAskers {
		return a
	}
	a := &asker{p: p, name: name, known: make(chan struct{})}
	var err error
	a.conn, err = grpc.NewClient("passthrough:///"+name.String(), grpc.WithTransportCredentials(insecure.NewCredentials()), // TLS is in dial
		grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(0), grpc.WithConnectParams(again()), grpc.WithContextDialer(a.dial))
	if err != nil {
		p.cfg.Log.Error("service cannot be asked", "service", name.String(), "error", err)
		return nil
	}
	conn := func() grpc.ClientConnInterface { return a.conn }
	a.client, a.picks = ratelimit.NewClient(conn, 0), extproc.NewClient(conn)
	a.overHTTP()
	if all.others == nil {
		all.others = map[model.PortName]*asker{}
	}
	all.others[name] = a
	w := p.workers[0]
	w.loop.Post(func() {
		p.live.ByName(w.loop, name, func(port *live.Port, why failure.Reason) {
			a.port, a.why = port, why
			close(a.known)
		})
	})
	a.conn.Connect()
	return a
}

// dial connects to the proxy in front of one of the service's endpoints.
func (a *asker) dial(ctx context.Context, _ string) (net.Conn, error) {
	select {
	case <-a.known:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if a.port == nil {
		a.p.forgetAsker(a)
		return nil, fmt.Errorf("%s: %s", a.name, a.why.Log())
	}
	c := a.port.Cluster(a.name)
	if c == nil || len(c.Endpoints()) == 0 {
		return nil, fmt.Errorf("%s: %s", a.name, failure.NoEndpoint.Log())
	}
	all := c.Endpoints()
	m := all[rand.IntN(len(all))].Model()
	id, err := spiffe.ParseID(m.Identity)
	if err != nil {
		return nil, fmt.Errorf("%s: endpoint %s: %w", a.name, m.Workload, err)
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", m.Address.String())
	if err != nil {
		return nil, err
	}
	secure := tls.Client(raw, mtls.ClientConfig(identity{a.p.cfg.Identity}, listener.ServerName(m.Port, m.Workload, m.Namespace), id))
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return secure, nil
}

// forgetAsker takes out one whose service is not there; the next question looks for it anew.
func (p *Proxy) forgetAsker(a *asker) {
	p.asking.mu.Lock()
	defer p.asking.mu.Unlock()
	if p.asking.others[a.name] == a {
		delete(p.asking.others, a.name)
		p.tasks.Go(a.close) // before stopAsking, and so before Close waits
	}
}

func (a *asker) close() {
	a.client.Close()
	a.picks.Close()
	a.word.Close()
	a.web.CloseIdleConnections()
	_ = a.conn.Close()
}

// stopAsking ends what is asked. Nothing is from then on.
func (p *Proxy) stopAsking() {
	p.asking.mu.Lock()
	all := p.asking.others
	p.asking.closed, p.asking.others = true, nil
	p.asking.mu.Unlock()
	for _, a := range all {
		a.close()
	}
	if p.asking.control != nil {
		p.asking.control.Close()
	}
}
