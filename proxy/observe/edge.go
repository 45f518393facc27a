package observe

import (
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/telemetry"
)

// edgeKey is what makes an edge in one recorder.
type edgeKey struct {
	direction   record.Direction
	tcp, mtls   bool
	protocol    model.Protocol
	port        uint16
	source      model.ServiceName
	destination model.ServiceName
	route       string
	backend     model.ServiceName // outbound
}

// slot answers a cheap hash.
func (k *edgeKey) slot() uint {
	h := uint(k.port)*31 + uint(len(k.route)) + uint(k.direction)*7
	for _, s := range [...]string{k.source.Name, k.destination.Name, k.route, k.backend.Name} {
		if n := len(s); n > 0 {
			h = h*31 + uint(n) + uint(s[0])*5 + uint(s[n-1])*3
		}
	}
	return h
}

func keyOf(r *record.Record) edgeKey {
	k := edgeKey{
		direction: r.Direction, tcp: r.TCP, mtls: r.MTLS, protocol: spoken(r), port: r.Port,
		source: r.Source, destination: r.Destination, route: r.Route,
	}
	if r.Passthrough {
		k.destination = model.ServiceName{}
	}
	if r.Direction == record.Outbound {
		k.backend = r.Backend.Service
	}
	return k
}

// spoken answers the protocol as a label: what was learned is not told apart from what was declared.
func spoken(r *record.Record) model.Protocol {
	switch p := r.Protocol; {
	case p == model.LearnedHTTP:
		return model.ProtocolHTTP
	case p > model.LearnedHTTP, r.TCP && p == model.ProtocolUnknown:
		return model.ProtocolTCP
	case !r.TCP && p == model.ProtocolUnknown:
		return model.ProtocolHTTP
	default:
		return p
	}
}

// other answers the key of everything over the budget.
func (k edgeKey) other() edgeKey {
	o := model.ServiceName{Name: telemetry.Other}
	return edgeKey{direction: k.direction, tcp: k.tcp, protocol: k.protocol, source: o, destination: o, route: telemetry.Other}
}

func (k edgeKey) public() telemetry.EdgeKey {
	d := "outbound"
	if k.direction == record.Inbound {
		d = "inbound"
	}
	backend := ""
	if !k.backend.IsZero() {
		backend = label(k.backend)
	}
	return telemetry.EdgeKey{
		Direction: d, Source: label(k.source), Destination: label(k.destination), Port: k.port,
		Route: k.route, Backend: backend, Protocol: k.protocol.String(), MTLS: k.mtls,
	}
}

func label(n model.ServiceName) string {
	switch {
	case n.IsZero():
		return telemetry.Outside
	case n.Namespace == "":
		return n.Name
	}
	return n.String()
}

// chunk is the counters of one octave of the latency histogram, made when first needed.
type chunk [telemetry.SubBuckets]atomic.Uint64

// edge is the counters of one edge in one recorder: written by its loop, read by anybody.
type edge struct {
	key   edgeKey
	owner *Recorder
	next  *edge // never changes after the edge is published

	requests, failures atomic.Uint64
	nanos              atomic.Uint64
	latency            [telemetry.Octaves]atomic.Pointer[chunk]
	classic            [len(telemetry.DurationBounds) + 1]atomic.Uint64 // not cumulative; the last is +Inf
	outcomes           atomic.Pointer[outcome]

	opened, closed, sent, received atomic.Uint64
}

// outcome counts one way in which exchanges end.
type outcome struct {
	status, grpc int
	reason       string
	n            atomic.Uint64
	next         *outcome
}

// outcomeKey is an outcome in the series budget.
type outcomeKey struct {
	edgeKey
	status, grpc int
	reason       string
}

// done counts an exchange.
func (e *edge) done(r *record.Record) {
	add(&e.requests, 1)
	if failed(r) {
		add(&e.failures, 1)
	}
	d := max(r.End-r.Start, 0)
	add(&e.nanos, uint64(d))
	i := telemetry.Bucket(d)
	c := e.latency[i/telemetry.SubBuckets].Load()
	if c == nil {
		c = &chunk{}
		e.latency[i/telemetry.SubBuckets].Store(c)
	}
	add(&c[i%telemetry.SubBuckets], 1)
	add(&e.classic[classicBucket(d)], 1)
	add(&e.outcome(r.Status, r.GRPC, r.Reason).n, 1)
}

// outcome answers the counter for one way to end.
func (e *edge) outcome(status, grpc int, reason string) *outcome {
	for o := e.outcomes.Load(); o != nil; o = o.next {
		if o.status == status && o.grpc == grpc && o.reason == reason {
			return o
		}
	}
	if reason != telemetry.Other && !e.owner.o.admit(outcomeKey{e.key, status, grpc, reason}) {
		e.owner.o.overflow.Add(1)
		return e.outcome(0, -1, telemetry.Other)
	}
	o := &outcome{status: status, grpc: grpc, reason: reason, next: e.outcomes.Load()}
	e.outcomes.Store(o)
	return o
}

func (e *edge) snapshot() telemetry.Edge {
	s := telemetry.Edge{
		EdgeKey: e.key.public(), Requests: e.requests.Load(), Failures: e.failures.Load(),
		Opened: e.opened.Load(), Closed: e.closed.Load(), Sent: e.sent.Load(), Received: e.received.Load(),
	}
	s.Latency.Sum = time.Duration(e.nanos.Load())
	for o := range e.latency {
		if c := e.latency[o].Load(); c != nil {
			for i := range c {
				s.Latency.Append(o*telemetry.SubBuckets+i, c[i].Load())
			}
		}
	}
	return s
}

// failed says what counts as a failure of the edge: a 5xx, a gRPC status by which the server says so, or a
// reason that is not the downstream's doing.
func failed(r *record.Record) bool {
	if r.Reason != "" {
		why, _ := failure.ParseReason(r.Reason)
		if why.Side() != failure.Downstream {
			return true
		}
	}
	if r.Status >= 500 {
		return true
	}
	switch r.GRPC {
	case 2, 4, 13, 14, 15: // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS
		return true
	}
	return false
}

// classicBucket answers the index of the classic bucket for d.
func classicBucket(d time.Duration) int {
	s := d.Seconds()
	for i, b := range telemetry.DurationBounds {
		if s <= b {
			return i
		}
	}
	return len(telemetry.DurationBounds)
}
