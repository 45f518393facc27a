package keepalive_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/keepalive"
)

const most = 4 * time.Second

func TestNothingKnown(t *testing.T) {
	var e keepalive.Envelope
	if a, b := e.Age(0, false, most), e.Age(0, true, most); a != most || b != keepalive.Cautious || e.Requests(0) != 0 || e.Known(0) {
		t.Errorf("%v and %v", a, b)
	}
}

// A server with one timeout is used nearly up to it.
func TestFixedTimeout(t *testing.T) {
	var e keepalive.Envelope
	for i := range 4 {
		e.Closed(time.Duration(i)*time.Second, 5*time.Second+time.Duration(i)*time.Millisecond, 3)
	}
	if a := e.Age(4*time.Second, true, time.Minute); a < 4400*time.Millisecond || a > 4600*time.Millisecond {
		t.Errorf("%v after four closes at 5 s", a)
	}
	if a := e.Age(time.Hour, true, time.Minute); a != keepalive.Cautious {
		t.Errorf("%v an hour later", a)
	}
}

// A server that closes at random after 1 to 5 s: what is answered to who is careful stays below 1 s.
func TestRandomTimeout(t *testing.T) {
	above, asked := 0, 0
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var e keepalive.Envelope
		now := time.Duration(0)
		for range 100 {
			now += 100 * time.Millisecond
			e.Closed(now, time.Second+time.Duration(r.Int64N(int64(4*time.Second))), 1)
			asked++
			switch a := e.Age(now, true, most); {
			case a > time.Second:
				above++
			case a < 100*time.Millisecond:
				t.Fatalf("seed %d: %v", seed, a)
			}
		}
	}
	// Above it, what is lost is what arrives in the instant in which the connection is closed.
	if above*100 > asked {
		t.Errorf("%d of %d answers were more than 1 s", above, asked)
	}
}

// Connections that end together say one thing, and the least of it counts.
func TestRestart(t *testing.T) {
	var e keepalive.Envelope
	for i := range 10 {
		e.Closed(time.Second, time.Duration(10-i)*time.Second, 1)
	}
	if a := e.Age(time.Second, false, most); a != time.Second/2 {
		t.Errorf("%v", a)
	}
}

func TestLived(t *testing.T) {
	var e keepalive.Envelope
	for i := range 7 {
		e.Lived(time.Duration(i), time.Minute)
	}
	if a := e.Age(7, true, time.Hour); a != keepalive.Cautious {
		t.Errorf("%v after seven", a)
	}
	e.Lived(8, 50*time.Second)
	if a := e.Age(8, true, time.Hour); a != 25*time.Second {
		t.Errorf("%v after eight", a)
	}
	if a := e.Age(8, false, time.Hour); a != time.Hour {
		t.Errorf("%v where an hour is guessed", a)
	}
}

func TestHint(t *testing.T) {
	for _, c := range []struct {
		value    string
		age      time.Duration
		requests uint64
	}{
		{"timeout=2, max=99", 1600 * time.Millisecond, 100}, {"timeout=1", 800 * time.Millisecond, 0}, {" Timeout = 5 ", 4 * time.Second, 0},
		{"timeout=0", 0, 0}, {"timeout=600", 480 * time.Second, 0},
		{"timeout=", keepalive.Cautious, 0}, {"timeout=-1", keepalive.Cautious, 0}, {"timeout=9999999", keepalive.Cautious, 0},
		{"max=0", keepalive.Cautious, 0}, {"5", keepalive.Cautious, 0}, {",,=,", keepalive.Cautious, 0}, {"", keepalive.Cautious, 0},
	} {
		var e keepalive.Envelope
		e.Hint(0, []byte(c.value))
		if a, n := e.Age(0, true, most), e.Requests(0); a != c.age || n != c.requests {
			t.Errorf("%q: %v, %d requests", c.value, a, n)
		}
	}
}

// A server that hangs up after its third response, without having said so.
func TestRequests(t *testing.T) {
	var e keepalive.Envelope
	for i := range 3 {
		if n := e.Requests(time.Duration(i) * time.Second); n != 0 {
			t.Fatalf("%d requests after %d closes", n, i)
		}
		e.Closed(time.Duration(i)*time.Second, time.Millisecond, 3)
	}
	if n := e.Requests(2 * time.Second); n != 3 {
		t.Errorf("%d requests", n)
	}
}

// TestRequestsExpire: nobody reaches a bound that is kept to, so it has to be forgotten for a server that was started again
// without one; and what still has one is found out anew.
func TestRequestsExpire(t *testing.T) {
	var e, hinted keepalive.Envelope
	hinted.Hint(0, []byte("max=4"))
	for i := range 3 {
		e.Closed(time.Duration(i)*time.Second, time.Millisecond, 3)
	}
	later := keepalive.Believed + 3*time.Second
	if e.Requests(keepalive.Believed) != 3 || hinted.Requests(keepalive.Believed) != 5 {
		t.Error("forgotten too soon")
	}
	if a, b := e.Requests(later), hinted.Requests(later); a != 0 || b != 0 {
		t.Errorf("still %d and %d requests", a, b)
	}
	hinted.Hint(later, []byte("max=9"))
	for i := range 3 {
		if n := e.Requests(later); n != 0 {
			t.Fatalf("%d requests after %d closes", n, i)
		}
		e.Closed(later+time.Duration(i)*time.Second, time.Millisecond, 7)
	}
	if a, b := e.Requests(later), hinted.Requests(later); a != 7 || b != 10 {
		t.Errorf("%d and %d requests, 7 and 10 are the bounds now", a, b)
	}
}

// FuzzEnvelope: whatever is seen, no answer is negative, and who is careful is never told more.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte{0, 10, 1, 200, 2, 3, 0, 255})
	f.Add([]byte("\x00\x05\x00\x05\x00\x05\x00\x05\x02timeout=3"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e keepalive.Envelope
		now := time.Duration(0)
		for len(b) >= 2 {
			now += time.Duration(b[1]) * time.Second
			age := time.Duration(b[1]) * 40 * time.Millisecond
			switch b[0] % 4 {
			case 0:
				e.Closed(now, age, uint64(b[1]%4))
			case 1:
				e.Lived(now, age)
			case 2:
				e.Hint(now, b[1:])
			case 3:
				e.Hint(now, []byte(fmt.Sprintf("timeout=%d", b[1])))
			}
			b = b[2:]
			free, careful := e.Age(now, false, most), e.Age(now, true, most)
			if careful < 0 || careful > free {
				t.Fatalf("%v, careful %v", free, careful)
			}
		}
	})
}
