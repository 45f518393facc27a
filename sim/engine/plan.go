// Package engine runs the data plane as a whole in the simulator: clients, the proxy beside them, the proxies beside two
// programs, and the programs, all in one goroutine on virtual time and a hostile network, decided by one seed. The
// proxies are the real code, from the accepted connection to the program and back; clients and programs are oracles:
// separate and simple implementations of HTTP/1 and HTTP/2 that know what they have sent and what they have to get.
//
// After every step what must always hold is looked at, and at the end what must have come of it: no request is lost or
// doubled, every byte is accounted for, every window and buffer is given back. Start reading at Run.
package engine

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Faults are what may go wrong in a run.
type Faults struct {
	Resets   bool // the network resets connections
	Programs bool // programs break off responses, say goodbye, close connections after a response
	Clients  bool // clients break off
	Changes  bool // endpoints come and go, a proxy drains
}

// Options of a run. The zero value is what its seed says.
type Options struct {
	Seed     uint64
	Requests int     // at most; 0: the seed decides. For finding a smaller run that fails
	Faults   *Faults // nil: the seed decides
	Trace    func(format string, args ...any)
}

// request is one request, what the program does with it, and what became of it.
type request struct {
	id       int
	method   string
	body     int  // bytes
	chunked  bool // HTTP/1: in chunks; HTTP/2: no content-length
	trailers bool
	expects  bool // 100-continue

	status       int
	answer       int // bytes of the response's body
	streamed     bool
	answerTrails bool
	hints        bool // 103 first
	early        bool // answered before the body has been read
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
	return fmt.Sprintf("request %d: %s with %d bytes, "+early+"answer %d with %d bytes: %s %s, delivered %d, complete %d", r.id, r.method, r.body,
		r.status, r.answer, r.outcome, r.reason, r.delivered, r.complete)
}

// idempotent reports whether it may be sent twice (RFC 9110 section 9.2.2).
func (r *request) idempotent() bool { return r.method != "POST" && r.method != "PATCH" }

// bodiless reports whether the response has no body whatever its head says (RFC 9110 section 6.4.1).
func (r *request) bodiless() bool { return r.method == "HEAD" || r.status == 204 || r.status == 304 }

var sizes = []int{0, 0, 0, 1, 10, 100, 500, 3000, 5000, 20000, 70000}

// plan makes a request.
func plan(rnd *rand.Rand, id int, f Faults) *request {
	size := func() int { return sizes[rnd.IntN(len(sizes))] + rnd.IntN(3) }
	one := func(n int) bool { return rnd.IntN(n) == 0 }
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
	if f.Programs {
		if one(12) && r.answer > 0 {
			r.breaks = rnd.IntN(r.answer)
		}
		r.closes = one(6)
	}
	return r
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

// most is how long anything may take in virtual time: longer than every bound of the proxies.
const most = 3 * time.Hour
