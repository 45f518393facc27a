// Package engine runs the data plane as a whole in the simulator: clients, the proxy beside them, the proxies beside the
// programs, a gateway, and the programs, all in one goroutine on virtual time and a hostile network, decided by one seed.
// The proxies are the real code, from the accepted connection to the program and back; clients and programs are oracles:
// separate and simple implementations of HTTP/1 and HTTP/2 that know what they have sent and what they have to get.
//
// The oracles check every byte and every frame as it arrives. After every turn of a proxy's loop its books are looked at
// (check.go): flow control, queues, buffers, timers, memory. At the end every request must have come to an end that can
// be explained, and nothing may be left over: no exchange, connection, buffer, timer or window. What is not simulated:
// TLS, sockets and their buffers (packages mtls and loop have tests of their own). Start reading at Run.
package engine

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tulle-mesh/tulle/sim"
)

// Options of a run. The zero value is what its seed says.
type Options struct {
	Seed     uint64
	Requests int     // at most; 0: the seed decides. For finding a smaller run that fails
	Faults   *Faults // nil: the seed decides
	Trace    func(format string, args ...any)

	// Payments: every request is a POST, and the mesh tries again, and hedges, whatever it may. Careless: also what may have been
	// acted on, as if acting twice did no harm; a run then finds something doubled.
	Payments, Careless bool

	// Scenario is one of Scenarios instead of what the seed decides: small, fixed, and without faults but Cut.
	Scenario string
	Cut      *sim.Cut
}

// kind of request.
type kind uint8

const (
	plain  kind = iota
	tunnel      // the connection, or the stream, is switched to WebSocket; body and answer are what goes through
	call        // messages in turn, as gRPC streams have them
	stream      // no HTTP: a TCP connection that is relayed
)

func (k kind) String() string { return [...]string{"request", "tunnel", "call", "stream"}[k] }

// request is one request, what the program does with it, and what became of it.
type request struct {
	id       int
	kind     kind
	method   string
	body     int  // bytes
	chunked  bool // HTTP/1: in chunks; HTTP/2: no content-length
	trailers bool
	expects  bool // 100-continue
	halves   bool // the client ends its direction behind it
	step     int  // call: bytes of a message

	status       int
	answer       int // bytes of the response's body
	streamed     bool
	answerTrails bool
	hints        bool // 103 first
	early        bool // answered before the body has been read; of tunnels and streams: the program ends its direction first
	breaks       int  // the response is broken off after so many bytes; -1: not
	closes       bool // the connection ends after the response

	// What happened.
	delivered int // times that a program has seen its head
	complete  int // times that a program has read all of it
	outcome   string
	reason    string // tulle-reason
	abandoned bool   // the client broke off
	behind    bool   // an early answer, on the same HTTP/1 connection
}

// Outcomes.
const (
	answered = "answered" // the program's response, complete and right
	refused  = "refused"  // a proxy's, with a reason
	cut      = "cut"      // begun, and visibly broken off; or the connection ended without an answer
)

func (r *request) String() string {
	early := ""
	if r.early {
		early = "early "
	}
	return fmt.Sprintf("%s %d: %s with %d bytes, "+early+"answer %d with %d bytes: %s %s, delivered %d, complete %d", r.kind, r.id, r.method, r.body,
		r.status, r.answer, r.outcome, r.reason, r.delivered, r.complete)
}

// idempotent reports whether it may be sent twice (RFC 9110 section 9.2.2).
func (r *request) idempotent() bool {
	return r.kind != stream && r.method != "POST" && r.method != "PATCH"
}

// bodiless reports whether the response has no body whatever its head says (RFC 9110 section 6.4.1).
func (r *request) bodiless() bool { return r.method == "HEAD" || r.status == 204 || r.status == 304 }

var sizes = []int{0, 0, 0, 1, 10, 100, 500, 3000, 5000, 20000, 70000}

// plan makes a request.
func plan(rnd *rand.Rand, id int, f Faults) *request {
	one := func(n int) bool { return rnd.IntN(n) == 0 }
	size := func() int {
		if one(150) {
			return 200_000 + rnd.IntN(200_000) // more than every watermark
		}
		return sizes[rnd.IntN(len(sizes))] + rnd.IntN(3)
	}
	r := &request{id: id, method: []string{"GET", "GET", "PUT", "POST", "POST", "DELETE", "HEAD", "PATCH"}[rnd.IntN(8)], status: 200, breaks: -1}
	switch r.method {
	case "PUT", "POST", "PATCH":
		r.body, r.chunked, r.trailers, r.expects = size(), one(2), one(4), one(6)
		r.trailers = r.trailers && r.chunked
		r.early = one(8)
	}
	r.answer, r.streamed, r.answerTrails, r.hints = size(), one(2), one(4), one(8)
	r.answerTrails = r.answerTrails && r.streamed
	if one(10) {
		r.status = []int{204, 304, 404, 500}[rnd.IntN(4)]
	}
	breaks, closes, at := one(12), one(6), rnd.Float64()
	if f.Programs {
		if breaks && r.answer > 0 {
			r.breaks = int(at * float64(r.answer))
		}
		r.closes = closes
	}
	return r
}

// turn makes another kind of a request: a tunnel or a call.
func (r *request) turn(rnd *rand.Rand, k kind) {
	*r = request{id: r.id, kind: k, method: "GET", body: r.body, answer: r.answer, early: rnd.IntN(2) == 0, status: 200, breaks: r.breaks}
	if k == tunnel || k == stream {
		r.body = max(r.body, rnd.IntN(70000)>>rnd.IntN(16))
		if rnd.IntN(10) == 0 {
			r.body = 200_000 + rnd.IntN(200_000)
		}
		return
	}
	r.method, r.chunked, r.streamed, r.answerTrails, r.early = "POST", true, true, true, false
	r.step = 1 + rnd.IntN(20000)>>rnd.IntN(14)
	r.body = r.step * (1 + rnd.IntN(12))
	if r.answer = r.body; r.breaks >= 0 {
		r.breaks = rnd.IntN(r.answer)
	}
}

// fill writes the body of a request, or with a different salt of a response: every byte depends on its place.
func fill(id, salt, from int, b []byte) []byte {
	for i := range b {
		x := uint32(id*2654435761+salt*40503) + uint32(from+i)*2246822519
		b[i] = byte(x>>24) ^ byte(x>>11)
	}
	return b
}

// body answers bytes from to to of a body.
func body(id, salt, from, to int) []byte { return fill(id, salt, from, make([]byte, to-from)) }

// Salts.
const (
	ofRequest  = 1
	ofResponse = 2
)

// most is how long anything may take in virtual time: longer than every bound of the proxies, slow ends included.
const most = 100 * time.Hour
