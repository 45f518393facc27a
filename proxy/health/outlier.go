package health

import (
	"math"
	"slices"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// Why is what made an endpoint an outlier.
type Why uint8

// Reasons, those that a single request can be the last straw of first.
const (
	Consecutive5xx     Why = iota // responses of 5xx; without model.Outlier.SplitLocal what goes wrong on our side is one too
	ConsecutiveGateway            // of them 502, 503 and 504
	ConsecutiveLocal              // connections that could not be made or broke, timeouts: with SplitLocal
	SuccessRate                   // far below the other endpoints'
	LocalSuccessRate              // likewise, of connections
	FailurePercent                // too many, whatever the others do
	LocalFailurePercent
	Latency     // far slower than the other endpoints
	ProbeFailed // half open, and the request that it got has failed
	Whys        // how many there are
)

// String answers the word in metrics and logs.
func (w Why) String() string {
	return [...]string{"consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure", "success_rate",
		"local_origin_success_rate", "failure_percentage", "local_origin_failure_percentage", "latency", "probe"}[w]
}

// Rate is how many requests, or connections, there were in an interval, and how many of them went well.
type Rate struct{ Total, Good uint64 }

// Kinds of Rate.
const (
	External = iota // responses
	Local           // connections, with model.Outlier.SplitLocal
	Rates           // how many there are
)

// percent answers the share that went well.
func (r Rate) percent() float64 { return float64(r.Good) * 100 / float64(r.Total) }

// Member is an endpoint as Outliers see it.
type Member struct {
	Rates   [Rates]Rate   // of the interval that is over; set before Tick
	Spent   time.Duration // likewise: how long its answers took together
	Answers uint64        // how many there were

	ejected  bool
	half     bool // ejected, and gets one request (model.Outlier.Probe)
	restored bool // it was ejected and is no more
	since    time.Duration
	jitter   time.Duration
	times    uint32        // base ejection times that the next ejection lasts
	began    time.Duration // of its ejections without a restoration between them
	out      time.Duration // how long the present one lasts, with model.Outlier.Learned; 0: as times says
}

// Ejected reports whether the member is ejected, half open or not.
func (m *Member) Ejected() bool { return m.ejected }

// HalfOpen reports whether the member's ejection ends with how one request goes.
func (m *Member) HalfOpen() bool { return m.half }

// Outliers are the endpoints of a cluster.
type Outliers struct {
	Settings *model.Outlier
	Members  []*Member
	// Reopen answers after how long an endpoint that has been failing for down is worth a request, with model.Outlier.Learned;
	// ok is false while that is not known. Nil: it never is.
	Reopen func(down time.Duration, rnd uint64) (d time.Duration, ok bool)
}

// Change is what Tick does to one member.
type Change struct {
	Member   int // index
	Ejected  bool
	Why      Why  // of an ejection
	HalfOpen bool // it gets one request; Probed says how it went
}

// Trip takes that a member has failed so often in a row that it is an outlier, and answers whether that ejects it. rnd is
// uniform.
func (o *Outliers) Trip(m *Member, why Why, now time.Duration, rnd uint64) (ejected bool) {
	if m.ejected || !o.room() || rnd>>32%100 >= uint64(o.enforced(why)) {
		return false
	}
	o.eject(m, now, rnd)
	return true
}

func (o *Outliers) eject(m *Member, now time.Duration, rnd uint64) {
	s := o.Settings
	if !m.ejected {
		m.began = now
	}
	m.ejected, m.half, m.since, m.jitter, m.out = true, false, now, 0, 0
	if s.Learned && s.Probe {
		m.out = o.learned(m, now, rnd)
	}
	if s.EjectionJitter > 0 {
		m.jitter = time.Duration(rnd & math.MaxUint32 % (uint64(s.EjectionJitter/time.Millisecond) + 1) * uint64(time.Millisecond))
	}
	if time.Duration(m.times)*s.BaseEjection < s.MaxEjection+s.BaseEjection {
		m.times++
	}
}

// Probed takes how the request of a member went that was half open: a good answer restores it, a failure ejects it for longer
// than the last time. It answers whether the member is restored.
func (o *Outliers) Probed(m *Member, well bool, now time.Duration, rnd uint64) (restored bool) {
	switch {
	case !m.half:
		return !m.ejected
	case well:
		o.Restore(m, now)
		return true
	}
	o.eject(m, now, rnd)
	return false
}

// room reports whether one more may be ejected.
func (o *Outliers) room() bool {
	out := 0
	for _, m := range o.Members {
		if m.ejected {
			out++
		}
	}
	if out == 0 && o.Settings.AlwaysOne {
		return true
	}
	return (out+1)*100 <= int(min(o.Settings.MaxPercent, 100))*len(o.Members)
}

// enforced answers in how many percent of the cases an outlier is ejected.
func (o *Outliers) enforced(why Why) uint32 {
	s := o.Settings
	return [Whys]uint32{s.Enforce5xx, s.EnforceGateway, s.EnforceLocal, s.EnforceSuccessRate, s.EnforceLocalSuccessRate,
		s.EnforceFailurePercent, s.EnforceLocalFailurePercent, 100, 100}[why]
}

// Restore ends a member's ejection.
func (o *Outliers) Restore(m *Member, now time.Duration) {
	if m.ejected {
		m.ejected, m.half, m.restored, m.since = false, false, true, now
	}
}

// Tick is called at the end of every interval: who has been out for long enough is restored, or half open, whose rates are
// bad or who is slow is ejected, and who has behaved for an interval is ejected for less the next time. rnd answers uniform numbers.
func (o *Outliers) Tick(now time.Duration, rnd func() uint64) (changes []Change) {
	s := o.Settings
	for i, m := range o.Members {
		switch {
		case !m.ejected || now-m.since < o.lasts(m):
		case !s.Probe:
			o.Restore(m, now)
			changes = append(changes, Change{Member: i})
		case !m.half:
			m.half = true
			changes = append(changes, Change{Member: i, Ejected: true, HalfOpen: true})
		}
	}
	changes = append(changes, o.judge(External, SuccessRate, FailurePercent, now, rnd)...)
	if s.SplitLocal {
		changes = append(changes, o.judge(Local, LocalSuccessRate, LocalFailurePercent, now, rnd)...)
	}
	changes = append(changes, o.slow(now, rnd)...)
	for _, m := range o.Members {
		if !m.ejected && m.restored && now-m.since >= s.Interval && m.times > 0 {
			m.times--
		}
	}
	return changes
}

// judge compares the members by one kind of rate.
func (o *Outliers) judge(kind int, rate, percent Why, now time.Duration, rnd func() uint64) (changes []Change) {
	s := o.Settings
	var compared, counted []int
	var sum, squares float64
	for i, m := range o.Members {
		r := m.Rates[kind]
		if m.ejected || r.Total == 0 {
			continue
		}
		if r.Total >= uint64(s.SuccessRequestVolume) {
			compared = append(compared, i)
			sum += r.percent()
		}
		if r.Total >= uint64(s.FailureRequestVolume) {
			counted = append(counted, i)
		}
	}
	eject := func(i int, why Why) {
		if o.Trip(o.Members[i], why, now, rnd()) {
			changes = append(changes, Change{Member: i, Ejected: true, Why: why})
		}
	}
	if n := len(compared); n > 0 && n >= int(s.SuccessMinimumHosts) {
		mean := sum / float64(n)
		for _, i := range compared {
			d := o.Members[i].Rates[kind].percent() - mean
			squares += d * d
		}
		least := mean - float64(s.SuccessStdevFactor)/1000*math.Sqrt(squares/float64(n))
		for _, i := range compared {
			if o.Members[i].Rates[kind].percent() < least {
				eject(i, rate)
			}
		}
	}
	if n := len(counted); n > 0 && n >= int(s.FailureMinimumHosts) {
		for _, i := range counted {
			if 100-o.Members[i].Rates[kind].percent() >= float64(s.FailureThreshold) {
				eject(i, percent)
			}
		}
	}
	return changes
}

// Defaults of the settings of Latency.
const (
	latencyLeast  = 10 * time.Millisecond
	latencyHosts  = 3
	latencyVolume = 20
)

// slow ejects who takes far longer than the others: the median of their means is not moved by a few slow ones, as a mean would
// be.
func (o *Outliers) slow(now time.Duration, rnd func() uint64) (changes []Change) {
	s := o.Settings
	if s.LatencyFactor <= 0 {
		return nil
	}
	least, hosts, volume := s.LatencyLeast, int(s.LatencyMinimumHosts), uint64(s.LatencyRequestVolume)
	if least <= 0 {
		least = latencyLeast
	}
	if hosts == 0 {
		hosts = latencyHosts
	}
	if volume == 0 {
		volume = latencyVolume
	}
	var compared []int
	var means []time.Duration
	for i, m := range o.Members {
		if !m.ejected && m.Answers >= volume {
			compared = append(compared, i)
			means = append(means, m.Spent/time.Duration(m.Answers))
		}
	}
	if len(means) < hosts {
		return nil
	}
	sorted := slices.Sorted(slices.Values(means))
	most := max(time.Duration(s.LatencyFactor*float64(sorted[(len(sorted)-1)/2])), least)
	for k, i := range compared {
		if means[k] > most && o.Trip(o.Members[i], Latency, now, rnd()) {
			changes = append(changes, Change{Member: i, Ejected: true, Why: Latency})
		}
	}
	return changes
}

// soonest is the shortest ejection whose length is to be learned.
const soonest = 500 * time.Millisecond

// learned answers how long an ejection lasts that begins now, with model.Outlier.Learned: as what was seen says, else as long
// as the endpoint has been out already, so that its recovery is seen, and learned, with an error of no more than that.
func (o *Outliers) learned(m *Member, now time.Duration, rnd uint64) time.Duration {
	s, down := o.Settings, now-m.began
	if o.Reopen != nil {
		if d, ok := o.Reopen(down, rnd); ok {
			return min(d, s.MaxEjection)
		}
	}
	return min(max(down, soonest), time.Duration(m.times+1)*s.BaseEjection, s.MaxEjection)
}

// lasts answers how long the present ejection of a member lasts.
func (o *Outliers) lasts(m *Member) time.Duration {
	if m.out > 0 {
		return m.out
	}
	return min(time.Duration(m.times)*o.Settings.BaseEjection, o.Settings.MaxEjection) + m.jitter
}

// HalfOpen makes those half open whose ejection is over and whose length was learned, or is being learned: it may be shorter
// than an interval. It answers them.
func (o *Outliers) HalfOpen(now time.Duration) (members []int) {
	for i, m := range o.Members {
		if m.ejected && !m.half && m.out > 0 && now-m.since >= m.out && o.Settings.Probe {
			m.half = true
			members = append(members, i)
		}
	}
	return members
}

// Due answers when HalfOpen has something to do; ok is false if that is never.
func (o *Outliers) Due() (at time.Duration, ok bool) {
	for _, m := range o.Members {
		if m.ejected && !m.half && m.out > 0 && (!ok || m.since+m.out < at) {
			at, ok = m.since+m.out, true
		}
	}
	return at, ok
}
