package exchange

import "github.com/tulle-mesh/tulle/proxy/failure"

// What endpoints are told of their attempts, so that outliers are found (proxy/cluster/outlier.go) and balancing by latency
// and by reports has what it needs. Where nobody wants to know, these are no more than a look at a pointer.

// responded tells the endpoint its response's status; a gRPC response without a body says more than its HTTP status.
func (x *Exchange) responded(status int) {
	if x.ep == nil {
		return
	}
	if g := x.rec.GRPC; g >= 0 && g < len(statusOfGRPC) {
		status = statusOfGRPC[g]
	}
	x.ep.Answered(status)
	now := x.w.cfg.Loop.Now()
	x.ep.Took(now, now-x.since, status >= 500 || status == 429)
	x.try.probed(status < 500)
	if status >= 502 && status <= 504 {
		x.ep.Failed(x.w.cfg.Loop)
	} else {
		x.ep.Succeeded(x.w.cfg.Loop, x.since)
		if !x.w.bench.Empty() {
			x.w.bench.Well(x.cluster, x.w.random.Uint64())
		}
	}
}

// probed tells the endpoint how the attempt went that decides about it.
func (t *try) probed(well bool) {
	if t.probe {
		t.probe = false
		t.ep.Probed(well)
	}
}

// unprobed tells it that the attempt has ended and nothing was learned.
func (t *try) unprobed() {
	if t.probe {
		t.probe = false
		t.ep.Unprobed()
	}
}

// failed tells the endpoint that it has not answered, and late: that it took too long.
func (x *Exchange) failed(t *try, late bool) {
	t.ep.Missed(late)
	now := x.w.cfg.Loop.Now()
	t.ep.Took(now, now-t.since, true)
	t.ep.Failed(x.w.cfg.Loop)
	t.probed(false)
}

// missed tells the endpoint why an attempt ended, if that is the endpoint's doing.
func (x *Exchange) missed(t *try, reason failure.Reason) {
	switch reason {
	case failure.ConnectFailed, failure.ConnectTimeout, failure.TLSFailed, failure.PeerIdentity, failure.UpstreamProtocol:
		x.failed(t, false)
	case failure.UpstreamReset, failure.RefusedStream:
		if !t.stale { // else the server was closing an idle connection, which is its right
			x.failed(t, false)
		}
	case failure.AttemptTimeout, failure.RequestTimeout, failure.Deadline:
		if !x.begun {
			x.failed(t, true)
		}
	}
}

// statusOfGRPC is the status of HTTP that a gRPC status is like, as Envoy and gRPC's gateways have it.
var statusOfGRPC = [...]int{
	0: 200, 1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401,
}
