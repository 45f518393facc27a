// Package ratelimit is the protocol of rate-limit services, envoy.service.ratelimit.v3, both sides of it: Client asks one,
// Serve is one. It decides nothing and counts nothing. A Client never blocks who asks, and has a bound of questions under
// way; it is safe for concurrent use, and every goroutine it makes ends with Close. Start reading at Client.Ask.
package ratelimit

import (
	"context"
	"errors"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/internal/underway"
	"github.com/tulle-mesh/tulle/model"
)

// Client asks a service.
type Client struct {
	conn  func() grpc.ClientConnInterface
	asked *underway.Group
}

// defaultMost is how many questions may be under way.
const defaultMost = 1024

// NewClient makes one; conn answers the connection to ask over, nil while there is none. most is how many questions may be
// under way; 0: 1024.
func NewClient(conn func() grpc.ClientConnInterface, most int) *Client {
	if most <= 0 {
		most = defaultMost
	}
	return &Client{conn: conn, asked: underway.New(most)}
}

// Ask asks q, which must not be changed until then has been called: once, from another goroutine, within q.Timeout. It
// answers false, and then is not called, if there is no connection or too much under way.
func (c *Client) Ask(q *model.RateQuestion, then func(*model.RateAnswer, error)) bool {
	conn := c.conn()
	if conn == nil {
		return false
	}
	return c.asked.Go(func(ctx context.Context, _ func()) {
		ctx, cancel := context.WithTimeout(ctx, q.Timeout)
		defer cancel()
		r, err := rlsv3.NewRateLimitServiceClient(conn).ShouldRateLimit(ctx, encode(q))
		if err != nil {
			then(nil, err)
			return
		}
		then(decode(r, len(q.Descriptors)))
	})
}

// Close ends what is under way.
func (c *Client) Close() { c.asked.Close() }

func encode(q *model.RateQuestion) *rlsv3.RateLimitRequest {
	r := &rlsv3.RateLimitRequest{Domain: q.Domain}
	for _, d := range q.Descriptors {
		m := &commonv3.RateLimitDescriptor{}
		for _, e := range d {
			m.Entries = append(m.Entries, &commonv3.RateLimitDescriptor_Entry{Key: e.Key, Value: e.Value})
		}
		r.Descriptors = append(r.Descriptors, m)
	}
	return r
}

// errUnclear is the answer of a service that does not say whether the limit is reached.
var errUnclear = errors.New("the rate-limit service says neither OK nor OVER_LIMIT")

// decode reads an answer. One without a status for each descriptor counts for all of them.
func decode(r *rlsv3.RateLimitResponse, n int) (*model.RateAnswer, error) {
	if c := r.GetOverallCode(); c != rlsv3.RateLimitResponse_OK && c != rlsv3.RateLimitResponse_OVER_LIMIT {
		return nil, errUnclear
	}
	over := r.GetOverallCode() == rlsv3.RateLimitResponse_OVER_LIMIT
	out := &model.RateAnswer{Descriptors: make([]model.DescriptorAnswer, n)}
	some := false
	for i := range out.Descriptors {
		d := &out.Descriptors[i]
		if i >= len(r.GetStatuses()) {
			continue
		}
		s := r.GetStatuses()[i]
		d.Over = over && s.GetCode() == rlsv3.RateLimitResponse_OVER_LIMIT
		d.Requests, d.Left = s.GetCurrentLimit().GetRequestsPerUnit(), s.GetLimitRemaining()
		d.Window = units[s.GetCurrentLimit().GetUnit()] * time.Duration(max(s.GetCurrentLimit().GetUnitMultiplier().GetValue(), 1))
		if d.Reset = max(s.GetDurationUntilReset().AsDuration(), 0); d.Reset == 0 && d.Over {
			d.Reset = d.Window
		}
		some = some || d.Over
	}
	if over && !some {
		for i := range out.Descriptors {
			out.Descriptors[i].Over = true
		}
	}
	return out, nil
}

const day = 24 * time.Hour

// units are how long the units of the protocol are; a month and a year are as long as the service's own.
var units = map[rlsv3.RateLimitResponse_RateLimit_Unit]time.Duration{
	rlsv3.RateLimitResponse_RateLimit_SECOND: time.Second, rlsv3.RateLimitResponse_RateLimit_MINUTE: time.Minute,
	rlsv3.RateLimitResponse_RateLimit_HOUR: time.Hour, rlsv3.RateLimitResponse_RateLimit_DAY: day,
	rlsv3.RateLimitResponse_RateLimit_WEEK: 7 * day, rlsv3.RateLimitResponse_RateLimit_MONTH: 30 * day, rlsv3.RateLimitResponse_RateLimit_YEAR: 365 * day,
}

// Decide answers a question: who asks (zero: not proven), what, and how much each descriptor counts. nil: he may not ask.
type Decide func(peer spiffe.ID, q *model.RateQuestion, hits uint32) *model.RateAnswer

// Bounds of a question.
const (
	maxDescriptors = 64
	maxEntries     = 32
	maxText        = 4096
)

// Serve adds the service to a gRPC server.
func Serve(g grpc.ServiceRegistrar, decide Decide) {
	rlsv3.RegisterRateLimitServiceServer(g, &service{decide: decide})
}

type service struct {
	rlsv3.UnimplementedRateLimitServiceServer
	decide Decide
}

// ShouldRateLimit implements the service.
func (s *service) ShouldRateLimit(ctx context.Context, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	q := &model.RateQuestion{Domain: r.GetDomain()}
	if len(r.GetDescriptors()) > maxDescriptors || len(q.Domain) > maxText {
		return nil, status.Errorf(codes.InvalidArgument, "more than %d descriptors, or a domain of more than %d bytes", maxDescriptors, maxText)
	}
	for _, m := range r.GetDescriptors() {
		var d model.Descriptor
		for _, e := range m.GetEntries() {
			if len(e.GetKey()) > maxText || len(e.GetValue()) > maxText || len(d) == maxEntries {
				return nil, status.Errorf(codes.InvalidArgument, "a descriptor with more than %d entries, or one of more than %d bytes", maxEntries, maxText)
			}
			d = append(d, model.DescriptorEntry{Key: e.GetKey(), Value: e.GetValue()})
		}
		q.Descriptors = append(q.Descriptors, d)
	}
	a := s.decide(peerOf(ctx), q, max(r.GetHitsAddend(), 1))
	if a == nil {
		return nil, status.Error(codes.PermissionDenied, "whoever asks has to prove who he is")
	}
	return answer(a), nil
}

func answer(a *model.RateAnswer) *rlsv3.RateLimitResponse {
	out := &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}
	for i := range a.Descriptors {
		d := &a.Descriptors[i]
		s := &rlsv3.RateLimitResponse_DescriptorStatus{Code: rlsv3.RateLimitResponse_OK, LimitRemaining: d.Left}
		if d.Over {
			s.Code, out.OverallCode = rlsv3.RateLimitResponse_OVER_LIMIT, rlsv3.RateLimitResponse_OVER_LIMIT
		}
		if d.Requests > 0 {
			s.CurrentLimit = &rlsv3.RateLimitResponse_RateLimit{RequestsPerUnit: d.Requests}
			s.DurationUntilReset = durationpb.New(d.Reset)
			if n := d.Window / time.Second; n > 0 && d.Window%time.Second == 0 && n < 1<<31 {
				s.CurrentLimit.Unit = rlsv3.RateLimitResponse_RateLimit_SECOND
				s.CurrentLimit.UnitMultiplier = wrapperspb.UInt32(uint32(n))
			}
		}
		out.Statuses = append(out.Statuses, s)
	}
	return out
}

// peerOf answers who has proven to be at the other end.
func peerOf(ctx context.Context) (id spiffe.ID) {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			id = svid.PeerID(info.State)
		}
	}
	return id
}
