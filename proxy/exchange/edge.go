package exchange

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/proxy/message"
)

// Fields x-envoy-* of requests. Upstreams believe what they say of the client, so clients do not say it: what Envoy's
// connection manager takes out of requests that are not internal ones, which none are unless it is told which addresses
// are, is taken out here.

const (
	fieldEnvoy    = "x-envoy-"
	fieldExternal = "x-envoy-external-address"
)

var nameExternal = []byte(fieldExternal)

// fromOutside are the fields that no client may say, without fieldEnvoy.
var fromOutside = [...]string{"internal", "retriable-status-codes", "retriable-header-names", "retry-on", "retry-grpc-on", "max-retries",
	"upstream-alt-stat-name", "upstream-rq-timeout-ms", "upstream-rq-per-try-timeout-ms", "upstream-rq-timeout-alt-response",
	"expected-rq-timeout-ms", "force-trace", "ip-tags", "original-url", "hedge-on-per-try-timeout"}

// fromEdge are those that the first proxy alone may say (use_remote_address).
var fromEdge = [...]string{"external-address", "decorator-operation", "downstream-service-cluster", "downstream-service-node", "original-path", "original-host"}

// distrust takes out of the request what this client may not say.
func (x *Exchange) distrust(edge bool) {
	keep := x.head.Fields[:0]
	for _, f := range x.head.Fields {
		if n := f.Name; len(n) > len(fieldEnvoy) && message.EqualFold(n[:len(fieldEnvoy)], fieldEnvoy) {
			n = n[len(fieldEnvoy):]
			if among(n, fromOutside[:]) || edge && among(n, fromEdge[:]) {
				continue
			}
		}
		keep = append(keep, f)
	}
	x.head.Fields = keep
}

func among(name []byte, list []string) bool {
	for _, n := range list {
		if message.EqualFold(name, n) {
			return true
		}
	}
	return false
}

// tellExternal says who the client is.
func (x *Exchange) tellExternal(a netip.Addr) {
	n := len(x.notes)
	x.notes = a.AppendTo(x.notes)
	x.head.Add(nameExternal, x.notes[n:len(x.notes):len(x.notes)])
}
