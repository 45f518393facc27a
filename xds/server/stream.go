package server

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/internal/rate"
	"github.com/tulle-mesh/tulle/xds/delta"
)

// Bounds of what one stream may ask for.
const (
	maxNames = 10_000 // names of a type
	maxTypes = 16
	maxName  = 1024 // bytes of a name, or of a type
)

// requests is how often one stream may say something. A proxy that subscribes to each of thousands of services by itself, and
// acknowledges each, stays far below it.
var requests = rate.New(1000, time.Second, 20_000)

// Stream is one proxy's delta stream. Its methods are safe for concurrent use and never wait for the peer.
type Stream struct {
	peer   spiffe.ID
	source Source
	counts *counts
	log    *slog.Logger
	wake   chan struct{} // holds one

	mu       sync.Mutex
	node     string
	protocol *delta.Server
	names    map[string]int // subscribed, per type
	spent    int64          // of requests
	began    time.Time
}

func newStream(id spiffe.ID, src Source, n *counts, log *slog.Logger) *Stream {
	return &Stream{peer: id, source: src, counts: n, log: log, wake: make(chan struct{}, 1), protocol: delta.NewServer(), names: map[string]int{}, began: time.Now()}
}

// Peer answers who asks.
func (s *Stream) Peer() spiffe.ID { return s.peer }

// Node answers the name that the proxy gave itself, "namespace/workload" for one of ours.
func (s *Stream) Node() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node
}

// Touch says that names may have changed; they are sent if the stream gets them and their version is new.
func (s *Stream) Touch(typ string, names ...string) {
	s.mu.Lock()
	for _, n := range names {
		s.protocol.Touch(typ, n)
	}
	s.mu.Unlock()
	s.poke()
}

// Standing answers whether the proxy has acknowledged everything it was or has to be sent, and what of it it
// refused: by "<type> <name>", with the reason.
func (s *Stream) Standing() (settled bool, refused map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.protocol.Clean(), s.protocol.Refused()
}

// Holds reports whether the stream gets a resource and has acknowledged its newest form.
func (s *Stream) Holds(typ, name string) (subscribed, acknowledged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.protocol.Wants(typ, name), s.protocol.Holds(typ, name)
}

func (s *Stream) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// serve receives in the caller's goroutine and sends in one of its own.
func (s *Stream) serve(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	s.source.Open(s)
	defer s.source.Close(s)
	ctx, cancel := context.WithCancel(g.Context())
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	sender.Go(func() { s.send(ctx, g) }) // when sending fails the stream is broken, and receiving ends too
	return s.receive(g)
}

func (s *Stream) receive(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	for {
		r, err := g.Recv()
		if err != nil {
			return nil // the proxy is gone, or the server is stopping
		}
		if err := s.take(r); err != nil {
			return err
		}
		s.poke()
	}
}

// take handles one request.
func (s *Stream) take(r *delta.Request) error {
	typ := r.GetTypeUrl()
	if err := s.within(r, time.Now()); err != nil {
		return err
	}
	s.mu.Lock()
	if s.node == "" {
		s.node = r.GetNode().GetId()
	}
	res := s.protocol.Request(r)
	s.names[typ] += len(res.Subscribe) - len(res.Unsubscribe)
	over := s.names[typ] > maxNames
	s.mu.Unlock()
	if over {
		return status.Errorf(codes.ResourceExhausted, "more than %d names of %s", maxNames, typ)
	}
	if len(res.Subscribe) > 0 {
		s.source.Subscribe(s, typ, res.Subscribe)
		s.Touch(typ, res.Subscribe...) // what changed before the source knew of us it did not tell us
	}
	if len(res.Unsubscribe) > 0 {
		s.source.Unsubscribe(s, typ, res.Unsubscribe)
	}
	if res.Wildcard {
		s.Touch(typ, s.source.All(s, typ)...)
	}
	if res.Nack != "" {
		s.counts.nacks[kindOf(typ)].Add(1)
		s.log.Error("a proxy refused what it was sent", "proxy", s.peer.String(), "node", s.Node(), "type", typ, "reason", res.Nack)
	}
	if res.Acked || res.Nack != "" {
		s.source.Acked(s)
	}
	return nil
}

// within answers why a request is more than a stream may say.
func (s *Stream) within(r *delta.Request, now time.Time) error {
	typ := r.GetTypeUrl()
	for _, list := range [][]string{{typ, r.GetNode().GetId()}, r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe()} {
		for _, n := range list {
			if len(n) > maxName {
				return status.Errorf(codes.InvalidArgument, "name %.40q… is longer than %d bytes", n, maxName)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.names[typ]; !known && len(s.names) >= maxTypes {
		return status.Errorf(codes.ResourceExhausted, "more than %d types of resources", maxTypes)
	}
	var ok bool
	if s.spent, ok = requests.Take(s.spent, now.Sub(s.began), 1); !ok {
		return status.Error(codes.ResourceExhausted, "more requests than one stream may send")
	}
	return nil
}

// send sends what is due until the stream ends.
func (s *Stream) send(ctx context.Context, g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) {
	get := func(typ, name string) *delta.Resource {
		r := s.source.Get(s, typ, name)
		if r == nil {
			return nil
		}
		return &delta.Resource{Name: name, Version: r.Version, Resource: r.Body}
	}
	for {
		revision := strconv.FormatUint(s.source.Revision(), 10) // before the content: it may be newer, never older
		s.mu.Lock()
		r := s.protocol.Next(revision, get)
		clean := s.protocol.Clean()
		s.mu.Unlock()
		if r != nil {
			if g.Send(r) != nil {
				return
			}
			s.counts.pushes[kindOf(r.GetTypeUrl())].Add(1)
			continue
		}
		if clean {
			s.source.Acked(s) // nothing of what was touched had changed
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
	}
}
