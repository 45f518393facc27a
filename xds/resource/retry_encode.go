package resource

import (
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
)

// encodeRetry writes a policy where Envoy's does the same. Envoy sends requests of any method again, also those that may have
// been acted on: it gets no policy that would let it.
func encodeRetry(r *model.Retry) *routev3.RetryPolicy {
	const may = model.RetryReset | model.RetryTimeout
	if r == nil || !r.AnyMethod && r.On != model.RetryUntouched || r.Base > 0 && (r.Base < time.Millisecond || r.Max < r.Base) || r.Attempts > 100 {
		return nil
	}
	var on []string
	for _, c := range []struct {
		bits model.RetryOn
		word string
	}{{model.Retry5xx, "5xx"}, {model.RetryGateway, "gateway-error"}, {may, "reset"}, {model.RetryUntouched, "connect-failure,refused-stream"},
		{model.Retry4xx, "retriable-4xx"}, {model.RetryStatuses, "retriable-status-codes"}} {
		if r.On&c.bits == c.bits {
			on = append(on, c.word)
		}
	}
	for n, word := range map[int]string{1: "cancelled", 4: "deadline-exceeded", 8: "resource-exhausted", 13: "internal", 14: "unavailable"} {
		if r.On&model.RetryGRPC != 0 && r.GRPC&(1<<n) != 0 {
			on = append(on, word)
		}
	}
	slices.Sort(on)
	m := &routev3.RetryPolicy{RetryOn: strings.Join(on, ","), NumRetries: wrapperspb.UInt32(r.Attempts)}
	for _, s := range r.Statuses {
		if s >= 200 && s <= 599 {
			m.RetriableStatusCodes = append(m.RetriableStatusCodes, uint32(s))
		}
	}
	if r.Base > 0 {
		m.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(r.Base), MaxInterval: durationpb.New(r.Max)}
	}
	return m
}
