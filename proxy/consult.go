package proxy

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/extauthz"
)

// consult asks an external authorizer, a service of the mesh, as this workload: exchange.Config.Consult.
func (p *Proxy) consult(q *model.AuthorizerQuestion, then func(*model.AuthorizerAnswer, error)) bool {
	a := p.asker(q.Authorizer.Backend)
	if a == nil {
		return false
	}
	return a.word.Ask(q, func(answer *model.AuthorizerAnswer, err error) {
		if now := time.Now().Unix(); err != nil && a.told.Swap(now) != now {
			p.cfg.Log.Warn("external authorizer gives no answer", "service", a.name.String(), "policy", q.Authorizer.Name, "fail_open", q.Authorizer.FailOpen, "error", err)
		}
		then(answer, err)
	})
}

// overHTTP makes what asks an authorizer: over the same way to its service's proxies as gRPC, for those that speak HTTP too.
func (a *asker) overHTTP() {
	var only http.Protocols
	only.SetUnencryptedHTTP2(true) // TLS is in dial; between proxies it is HTTP/2
	a.web = &http.Transport{Protocols: &only, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: time.Minute,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return a.dial(ctx, "") }}
	a.word = extauthz.NewClient(a.conn, a.web)
}
