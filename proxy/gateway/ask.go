package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/ratelimit"
)

// asker asks one rate-limit service over one connection.
type asker struct {
	conn   *grpc.ClientConn
	client *ratelimit.Client
}

// maxAskers is how many rate-limit services a process asks at most.
const maxAskers = 64

// ask asks the service that a cluster is: admission.Config.Ask.
func (g *Gateway) ask(q *model.RateQuestion, then func(*model.RateAnswer, error)) bool {
	a := g.askerOf(q.Cluster)
	return a != nil && a.client.Ask(q, then)
}

// askerOf answers who asks a cluster, made if it is asked for the first time; nil: it cannot be asked.
func (g *Gateway) askerOf(name model.PortName) *asker {
	g.asking.Lock()
	defer g.asking.Unlock()
	if a := g.askers[name]; a != nil || len(g.askers) >= maxAskers {
		return a
	}
	c := g.cluster(name)
	if c == nil {
		return nil
	}
	secure := insecure.NewCredentials()
	if t, err := g.controlTLS(c.Model()); err != nil {
		g.cfg.Log.Error("rate-limit service cannot be asked", "cluster", name.String(), "error", err)
		return nil
	} else if t != nil {
		secure = credentials.NewTLS(t)
	}
	conn, err := grpc.NewClient("passthrough:///"+name.String(), grpc.WithTransportCredentials(secure), grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return g.dialOne(ctx, name) }))
	if err != nil {
		g.cfg.Log.Error("rate-limit service cannot be asked", "cluster", name.String(), "error", err)
		return nil
	}
	conn.Connect() // what is asked first need not wait for it
	a := &asker{conn: conn, client: ratelimit.NewClient(func() grpc.ClientConnInterface { return conn }, 0)}
	if g.askers == nil {
		g.askers = map[model.PortName]*asker{}
	}
	g.askers[name] = a
	return a
}

var errNobody = errors.New("the cluster has no endpoint")

// dialOne connects to one of a cluster's endpoints, whichever chance picks.
func (g *Gateway) dialOne(ctx context.Context, name model.PortName) (net.Conn, error) {
	c := g.cluster(name)
	if c == nil || len(c.Endpoints()) == 0 {
		return nil, errNobody
	}
	all := c.Endpoints()
	return (&net.Dialer{}).DialContext(ctx, "tcp", all[rand.IntN(len(all))].Address().String())
}

// stopAsking ends what is under way; nothing is asked any more, since no loop runs.
func (g *Gateway) stopAsking() {
	g.asking.Lock()
	all := g.askers
	g.askers = nil
	g.asking.Unlock()
	for _, a := range all {
		a.client.Close()
		_ = a.conn.Close()
	}
}
