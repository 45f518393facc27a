// Package keepalive learns, of one server, for how long it keeps a connection that has no request open, and how many
// requests it takes on one. It answers for how long a connection may be at rest and still be given a request. A request on a
// connection that its server is just closing is lost, and one that is not idempotent cannot be sent again; so the
// answer stays below what was seen, and before anything was seen it is short for those. What is learned is bounded in
// size and in time. Pure: times are arguments. Not safe for concurrent use. Start reading at Envelope.Age.
package keepalive

import (
	"bytes"
	"time"
)

// Bounds and guesses.
const (
	// Cautious is for how long a connection may have been at rest before a request that cannot be sent again is given to it,
	// while nothing is known of its server: no server that is in wide use closes sooner.
	Cautious = 500 * time.Millisecond
	// Believed is how long an observation counts: a server may be started again with other settings.
	Believed = 15 * time.Minute
	// Together is within what time connections are closed for one and the same reason, say a restart: they count as one.
	Together = 50 * time.Millisecond
	// Served is how soon after a response a connection ends because of the number of its requests and not of its rest.
	Served = 20 * time.Millisecond

	kept   = 16 // observations of either kind
	enough = 4  // closes from which on their spread says something
	lived  = 8  // connections that have to have lived twice as long, while no close was seen
)

// Envelope is what is known of one server. Its zero value knows nothing.
type Envelope struct {
	closes, lives observations
	hinted        bool
	hint          time.Duration
	most          uint64        // requests per connection; 0: no bound is known
	mostAt        time.Duration // when that was seen last
	last          uint64        // the number of requests after which a connection has ended at once,
	again         int           // and how often in a row it was that number
}

// observations are the newest of their kind.
type observations struct {
	list [kept]struct{ at, age time.Duration }
	next int
	n    int
}

func (o *observations) add(now, age time.Duration) {
	o.list[o.next].at, o.list[o.next].age = now, age
	o.next = (o.next + 1) % kept
	o.n = min(o.n+1, kept)
}

// newest answers the observation that was added last, nil if there is none.
func (o *observations) newest() *struct{ at, age time.Duration } {
	if o.n == 0 {
		return nil
	}
	return &o.list[(o.next+kept-1)%kept]
}

// Closed: the server has closed a connection that had had served requests, after it had been at rest for age. now is
// of any clock that only goes forward, always the same one.
func (e *Envelope) Closed(now, age time.Duration, served uint64) {
	if age < Served && served > 0 {
		if e.last == served {
			e.again++
		} else {
			e.last, e.again = served, 0
		}
		if e.again >= 2 {
			e.most, e.mostAt = served, now
			return
		}
	}
	if o := e.closes.newest(); o != nil && now-o.at < Together {
		o.age = min(o.age, age)
		return
	}
	e.closes.add(now, age)
}

// Lived: a connection was found open after it had been at rest for age, and that rest is now over.
func (e *Envelope) Lived(now, age time.Duration) {
	if age >= Cautious {
		e.lives.add(now, age)
	}
}

// Hint takes the value of a Keep-Alive field ("timeout=5, max=100"), in which some servers say what they do, of the first
// response on a connection.
func (e *Envelope) Hint(now time.Duration, value []byte) {
	for part := range bytes.SplitSeq(value, []byte(",")) {
		name, v, _ := bytes.Cut(bytes.TrimSpace(part), []byte("="))
		n, ok := number(bytes.Trim(v, ` "`))
		switch {
		case !ok:
		case bytes.EqualFold(bytes.TrimSpace(name), []byte("timeout")):
			e.hinted, e.hint = true, time.Duration(n)*time.Second
		case bytes.EqualFold(bytes.TrimSpace(name), []byte("max")) && n > 0 && e.Requests(now) == 0:
			e.most, e.mostAt = uint64(n)+1, now // it counts what is left after this one
		}
	}
}

// number reads a number below a million.
func number(b []byte) (n int, ok bool) {
	if len(b) == 0 || len(b) > 6 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// Requests answers after how many requests a connection is not used again; 0: no bound is known. A bound that nothing has
// confirmed within Believed is forgotten: since nobody reaches it any more, nothing can tell that the server has another one
// now. Of a server that still has it the next connections find it out anew.
func (e *Envelope) Requests(now time.Duration) uint64 {
	if e.most > 0 && now-e.mostAt > Believed {
		e.most, e.last, e.again = 0, 0, 0
	}
	return e.most
}

// Age answers for how long a connection may have been at rest and still be given a request. careful is for a request that
// cannot be sent again; guess is for all others while nothing is known.
//
//   - The server has said it (Hint): four fifths of that.
//   - It was seen to close connections at least four times: the least age that was seen, less five n-ths of the spread of
//     the n ages, less a tenth (of ages that are spread evenly the least of n is about one n-th of the spread above where
//     they begin, and in 99 of 100 cases less than five); for a request that can be sent again the
//     least less a tenth. Fewer times: half of the least, and at most Cautious for a careful request.
//   - It was never seen to close one: half of what eight connections have lived, at least guess, or Cautious for a careful
//     request.
//
// A careful request is never answered more than another.
func (e *Envelope) Age(now time.Duration, careful bool, guess time.Duration) time.Duration {
	least, spread, n := e.closes.least(now)
	if careful {
		guess = min(guess, Cautious)
	}
	age := guess
	switch {
	case n >= enough && !careful:
		age = least - least/10
	case n >= enough:
		age = max(least-5*spread/time.Duration(n)-least/10, min(Cautious, least/2))
	case n > 0 && careful:
		age = min(Cautious, least/2)
	case n > 0:
		age = least / 2
	case e.hinted:
		return e.hint * 4 / 5
	default:
		age = max(guess, e.lives.th(now, lived)/2)
	}
	if e.hinted {
		age = min(age, e.hint*4/5)
	}
	return age
}

// Known reports whether the server was seen to close a connection without a request within Believed.
func (e *Envelope) Known(now time.Duration) bool {
	_, _, n := e.closes.least(now)
	return n > 0
}

// least answers the least age of those that are believed still, how far they are apart, and how many they are.
func (o *observations) least(now time.Duration) (least, spread time.Duration, n int) {
	var greatest time.Duration
	for _, s := range o.list[:o.n] {
		if now-s.at > Believed {
			continue
		}
		if n == 0 || s.age < least {
			least = s.age
		}
		greatest = max(greatest, s.age)
		n++
	}
	return least, greatest - least, n
}

// th answers the k-th greatest age of those that are believed still; 0 if they are fewer.
func (o *observations) th(now time.Duration, k int) time.Duration {
	var top [kept]time.Duration // greatest first
	n := 0
	for _, s := range o.list[:o.n] {
		if now-s.at > Believed {
			continue
		}
		i := n
		for ; i > 0 && top[i-1] < s.age; i-- {
			top[i] = top[i-1]
		}
		top[i] = s.age
		n++
	}
	if n < k {
		return 0
	}
	return top[k-1]
}
