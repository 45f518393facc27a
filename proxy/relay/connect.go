package relay

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/pool"
)

// Blanks is where blank mesh connections come from; *pool.Pool is one.
type Blanks interface {
	Blank(t *pool.Target, timeout time.Duration, ready func(c loop.Conn, f *failure.Failure)) (cancel func())
	Return(t *pool.Target, c loop.Conn)
}

// maxAttempts is to how many endpoints a connection is tried.
const maxAttempts = 5

// Search looks for a blank connection to an endpoint of a cluster, and goes on to another endpoint when one
// cannot be reached: nothing has been sent, so nothing can be doubled. It belongs to one loop.
type Search struct {
	wish    Wish
	loop    loop.Loop
	blanks  Blanks
	cluster *cluster.Cluster
	rnd     *rand.Rand
	rec     *record.Record
	then    func(c loop.Conn, ep *cluster.Endpoint, f *failure.Failure)
	tried   []*cluster.Endpoint
	last    *failure.Failure
	cancel  func()
	done    bool
	probing *cluster.Endpoint // the attempt decides about it: it is ejected
}

// Find starts a search; then is called once, perhaps inside Find, with a connection (then must call SetHandler)
// or with why there is none. Attempts are noted in rec.
func Find(l loop.Loop, b Blanks, c *cluster.Cluster, rnd *rand.Rand, rec *record.Record,
	then func(c loop.Conn, ep *cluster.Endpoint, f *failure.Failure)) *Search {
	return FindAs(Wish{}, l, b, c, rnd, rec, then)
}

// Wish is what a connection asks of its endpoint.
type Wish struct {
	Attempts int           // endpoints that are tried; 0: 5
	Subset   []model.Label // as model.Backend's
	Source   netip.Addr    // of the client, for policies that hash: a connection has nothing else; zero: by chance
}

// FindAs is Find with a wish.
func FindAs(wish Wish, l loop.Loop, b Blanks, c *cluster.Cluster, rnd *rand.Rand, rec *record.Record,
	then func(c loop.Conn, ep *cluster.Endpoint, f *failure.Failure)) *Search {
	if wish.Attempts <= 0 {
		wish.Attempts = maxAttempts
	}
	s := &Search{wish: wish, loop: l, blanks: b, cluster: c, rnd: rnd, rec: rec, then: then}
	s.try()
	return s
}

// Next goes on after the connection that was found broke before a byte had passed on it: then is called again, with
// a connection to another endpoint or with why.
func (s *Search) Next(why failure.Reason) {
	if n := s.rec.NAttempts - 1; n >= 0 && n < record.MaxAttempts {
		s.rec.Attempts[n].Reason = why.Label()
	}
	s.done = false
	s.failed(s.tried[len(s.tried)-1], &failure.Failure{Reason: why})
}

// Cancel ends the search; then is not called any more. What is under way becomes a spare.
func (s *Search) Cancel() {
	if !s.done {
		s.done = true
		if s.cancel != nil {
			s.cancel()
		}
		if s.probing != nil {
			s.probing.Unprobed()
			s.probing = nil
		}
	}
}

func (s *Search) try() {
	choice := cluster.Choice{Now: s.loop.Now(), Random: s.rnd.Uint64(), Excluded: s.tried, Wanted: s.rec.Wanted, Subset: s.wish.Subset}
	if s.wish.Source.IsValid() {
		var text [64]byte
		choice.Hash, choice.Hashed = xxhash.Sum64(s.wish.Source.Unmap().WithZone("").AppendTo(text[:0])), true
	}
	ep, from, why := s.cluster.Choose(&choice)
	if ep == nil || len(s.tried) >= s.wish.Attempts {
		s.done = true
		if s.last == nil {
			s.last = &failure.Failure{Reason: why}
		}
		s.then(nil, nil, s.last)
		return
	}
	if choice.Probe {
		s.probing = ep
	}
	s.tried = append(s.tried, ep)
	s.rec.Backend = s.cluster.Name()
	note := &record.Attempt{}
	if s.rec.NAttempts < record.MaxAttempts {
		note = &s.rec.Attempts[s.rec.NAttempts]
	}
	s.rec.NAttempts++
	*note = record.Attempt{Workload: ep.Workload(), Address: ep.Address(), From: from, Start: s.loop.Now()}
	target := pool.MeshTarget(ep.Model())
	if target.Kind != pool.Mesh {
		target.TLS, target.Cluster = s.cluster.TLS(), s.cluster.Model()
	}
	cancel := s.blanks.Blank(&target, s.cluster.ConnectTimeout(), func(c loop.Conn, f *failure.Failure) {
		note.End = s.loop.Now()
		if f != nil {
			note.Reason = f.Reason.Label()
			switch {
			case f.Reason.Side() == failure.Upstream:
				ep.Missed(f.Reason == failure.ConnectTimeout)
				ep.Took(note.End, note.End-choice.Now, true)
				s.probed(false)
			case s.probing != nil:
				s.probing.Unprobed()
			}
			s.probing = nil
			s.failed(ep, f)
			return
		}
		ep.Connected()
		ep.Relayed()
		ep.Took(note.End, note.End-choice.Now, false)
		s.probed(true)
		s.rec.DestinationID = ep.Identity()
		s.done = true
		s.then(c, ep, nil)
	})
	if len(s.tried) > 0 && s.tried[len(s.tried)-1] == ep { // else a later attempt has set it from inside
		s.cancel = cancel
	}
}

// probed tells the endpoint that the attempt decides about how it went.
func (s *Search) probed(well bool) {
	if s.probing != nil {
		s.probing.Probed(well)
		s.probing = nil
	}
}

func (s *Search) failed(ep *cluster.Endpoint, f *failure.Failure) {
	if s.done {
		return
	}
	s.last = f
	ep.ConnectFailed(s.loop.Now())
	s.try()
}
