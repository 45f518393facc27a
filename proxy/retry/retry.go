// Package retry is the rules of sending a request again: on which ends of an attempt (this file), after which wait
// (wait.go), and how much of it a destination and the whole chain behind it may get (budget.go). It promises that a
// request which may have been acted on is sent again only where acting twice does no harm, or where somebody has said so.
// It never sends anything, keeps no time and holds no state. Pure; safe for concurrent use. Start reading at Failed.
package retry

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
)

// Most is how many further attempts one request may get at most, whatever its policy says.
const Most = 100

// Failed reports whether p wants a request sent again whose attempt has ended without a response. What surely was not
// delivered is always sent again: nobody has worked for it. The others need Repeatable as well.
func Failed(p *model.Retry, reason failure.Reason) bool {
	switch reason {
	case failure.UpstreamReset:
		return p.On&(model.RetryReset|model.Retry5xx) != 0
	case failure.AttemptTimeout:
		return p.On&model.RetryTimeout != 0
	}
	return reason.Untouched()
}

// Answered reports whether p wants a request sent again that was answered with a status of HTTP and, if grpc is not less
// than 0, of gRPC. Such a request needs Repeatable as well.
func Answered(p *model.Retry, status, grpc int) bool {
	on := p.On
	switch {
	case on&model.RetryGateway != 0 && status >= 502 && status <= 504,
		on&model.Retry5xx != 0 && status >= 500 && status <= 599,
		on&model.Retry4xx != 0 && status == 409,
		on&model.RetryGRPC != 0 && grpc > 0 && grpc < 32 && p.GRPC>>grpc&1 != 0:
		return true
	case on&model.RetryStatuses != 0:
		for _, s := range p.Statuses {
			if int(s) == status {
				return true
			}
		}
	}
	return false
}

// Idempotent reports whether a request of this method has the same effect however often it is sent (RFC 9110 section 9.2.2).
func Idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// Repeatable reports whether a request may be sent again although it may have been acted on: its method is idempotent, it
// has an Idempotency-Key (keyed; draft-ietf-httpapi-idempotency-key-header), or its policy says that it does no harm. p may
// be nil.
func Repeatable(p *model.Retry, method string, keyed bool) bool {
	return Idempotent(method) || keyed || p != nil && p.AnyMethod
}

// Unreached reports whether an attempt that ended for this reason has cost its destination nothing that counts: there was
// no connection, or whoever is there is about to end. Such attempts are not counted by budgets.
func Unreached(reason failure.Reason) bool {
	switch reason {
	case failure.ConnectFailed, failure.ConnectTimeout, failure.TLSFailed, failure.PeerIdentity, failure.RefusedStream, failure.Draining:
		return true
	}
	return false
}
