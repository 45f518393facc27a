// Package health decides whether an endpoint is well: from the results of checks that are made of it (State, active), and
// from what became of the requests that it was sent (Outliers, passive). It follows what Envoy documents of health checking
// and outlier detection, defaults included; the decoder fills those in.
//
// It is pure: it asks nobody, time and chance are arguments, and values belong to whoever has them. Who asks is package
// probe; who puts both together is proxy/gateway. Start reading at State.Note and Outliers.Tick.
package health

import (
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// Result of one check.
type Result uint8

// Results.
const (
	Passed      Result = iota
	Failed             // it answered, and not as it should: that is believed at once
	Unreachable        // no connection, no answer in time, a connection that broke: believed after UnhealthyThreshold times
)

// String answers the word in metrics and logs.
func (r Result) String() string { return [...]string{"passed", "failed", "unreachable"}[r] }

// noTraffic is model.HealthCheck.NoTrafficInterval where it is 0.
const noTraffic = time.Minute

// State is what the checks of one endpoint have found. The zero value is of no use; see Begin.
type State struct {
	unhealthy bool
	fresh     bool   // there was no result yet
	good, bad uint32 // results in a row that did not change unhealthy
	last      Result
	at        time.Duration // when the last check ended, or when the first is due
	jitter    time.Duration // of the next interval
}

// Begin is the state of an endpoint that is to be checked from now on. One that has just become known is unhealthy until
// it has passed one check; one that was known before, and was not checked or was checked otherwise, stays what it was until
// results say something else.
func Begin(unhealthy bool, now time.Duration) State {
	return State{unhealthy: unhealthy, fresh: true, at: now}
}

// Unhealthy reports what the endpoint is.
func (s *State) Unhealthy() bool { return s.unhealthy }

// Fresh reports whether there was no result yet.
func (s *State) Fresh() bool { return s.fresh }

// Note takes the result of a check that ended at now, and answers whether the endpoint has changed. rnd is uniform and
// decides the jitter of the next interval.
func (s *State) Note(m *model.HealthCheck, r Result, now time.Duration, rnd uint64) (changed bool) {
	was := s.unhealthy
	if r == Passed {
		s.bad = 0
		if s.good++; s.fresh || s.good >= m.HealthyThreshold {
			s.unhealthy = false
		}
	} else {
		s.good = 0
		if s.bad++; r == Failed || s.bad >= m.UnhealthyThreshold {
			s.unhealthy = true
		}
	}
	if s.unhealthy != was {
		s.good, s.bad = 0, 0
	}
	s.fresh, s.last, s.at, s.jitter = false, r, now, 0
	if m.Jitter > 0 {
		s.jitter = time.Duration(rnd % uint64(m.Jitter))
	}
	return s.unhealthy != was
}

// Due answers when the next check is due; used: the cluster has been sent something. It can become earlier when used
// becomes true.
func (s *State) Due(m *model.HealthCheck, used bool) time.Duration {
	if s.fresh {
		return s.at
	}
	every := m.Interval
	switch {
	case !used && m.NoTrafficInterval > 0:
		every = m.NoTrafficInterval
	case !used:
		every = noTraffic
	case s.last != Passed && m.UnhealthyInterval > 0:
		every = m.UnhealthyInterval
	}
	return s.at + max(every+s.jitter, time.Millisecond)
}
