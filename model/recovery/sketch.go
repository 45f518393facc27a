// Package recovery is what is learned about how long failures of a destination last, from its first failure to its next
// success, and when it is therefore worth asking again. What is learned is a Sketch: of a fixed size, mergeable (so that
// what many proxies have seen is put together by the control plane, and a new caller knows it from its start), and fading
// in time. A Law is made of it, which answers waits. Both planes evaluate it: proxies wait by it, the command line shows
// it. Pure: times are arguments. A Sketch is not safe for concurrent use, a Law never changes. Start reading at Law.Wait.
package recovery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// Bounds of a Sketch.
const (
	// Buckets of a Sketch. Each but the first, which holds all that is shorter, is 19 % wider than the one before; the last one
	// ends after an hour.
	Buckets   = 80
	perOctave = 4
	first     = 4 * time.Millisecond // end of the first bucket
	// HalfLife of an observation.
	HalfLife = 24 * time.Hour
	// MostPerBucket bounds what one kind of failure weighs: a destination that fails one request in a hundred has thousands of
	// outages of some milliseconds a day, and they must not push out the restarts.
	MostPerBucket = 64
	unit          = 64 // of weights on the wire, per observation
	maxWire       = 4 * Buckets
)

// Sketch counts outages by how long they lasted. Its zero value is empty.
type Sketch struct {
	at     int64 // second of Unix time that the weights are of; 0: empty
	weight [Buckets]float32
}

// Add notes an outage that has ended at now.
func (s *Sketch) Add(now time.Time, lasted time.Duration) {
	s.fade(now.Unix())
	i := bucket(lasted)
	s.weight[i] = min(s.weight[i]+1, MostPerBucket)
}

// Merge adds what another sketch has counted.
func (s *Sketch) Merge(o *Sketch) {
	if o.at == 0 {
		return
	}
	other := *o
	other.fade(s.at)
	s.fade(other.at)
	for i, w := range other.weight {
		s.weight[i] = min(s.weight[i]+w, MostPerBucket)
	}
}

// fade makes the weights those of a later second; an earlier one changes nothing.
func (s *Sketch) fade(to int64) {
	if s.at == 0 {
		s.at = to
	}
	if to <= s.at {
		return
	}
	f := float32(math.Exp2(-float64(to-s.at) / HalfLife.Seconds()))
	s.at = to
	for i, w := range s.weight {
		if w *= f; w < 1./unit {
			w = 0
		}
		s.weight[i] = w
	}
}

// Weight answers how many outages are remembered; old ones count less.
func (s *Sketch) Weight() float64 {
	sum := 0.0
	for _, w := range s.weight {
		sum += float64(w)
	}
	return sum
}

// Quantile answers in what time a share q (0 to 1) of the outages was over, rounded up to the end of a bucket; 0 if there
// was none.
func (s *Sketch) Quantile(q float64) time.Duration {
	all := s.Weight()
	if all == 0 {
		return 0
	}
	sum, last := 0.0, 0
	for i, w := range s.weight {
		if w > 0 {
			last = i
		}
		if sum += float64(w); w > 0 && sum >= q*all {
			return end(i)
		}
	}
	return end(last)
}

// bucket answers which one counts d.
func bucket(d time.Duration) int {
	if d <= first {
		return 0
	}
	return min(int(math.Ceil(perOctave*math.Log2(float64(d)/float64(first))-1e-9)), Buckets-1)
}

// ends are the ends of the buckets.
var ends = func() (all [Buckets]time.Duration) {
	for i := range all {
		all[i] = time.Duration(float64(first) * math.Exp2(float64(i)/perOctave))
	}
	return all
}()

func end(i int) time.Duration { return ends[i] }

// version is the first byte of the wire form.
const version = 1

// Append adds the wire form: the version, the second, and for each bucket that is not empty its distance from the one
// before and its weight, as uvarints.
func (s *Sketch) Append(b []byte) []byte {
	b = append(b, version)
	b = binary.AppendUvarint(b, uint64(max(s.at, 0)))
	before := -1
	for i, w := range s.weight {
		if n := uint64(math.Round(float64(w) * unit)); n > 0 {
			b = binary.AppendUvarint(b, uint64(i-before))
			b = binary.AppendUvarint(b, n)
			before = i
		}
	}
	return b
}

// ErrVersion: the sketch is of another version, which says nothing against the rest of what it came with.
var ErrVersion = errors.New("recovery sketch of another version")

// Decode reads the wire form. What is no sketch is refused as a whole.
func Decode(b []byte) (s Sketch, err error) {
	switch {
	case len(b) == 0 || len(b) > maxWire:
		return s, fmt.Errorf("recovery sketch of %d bytes: 1 to %d are taken", len(b), maxWire)
	case b[0] != version:
		return s, ErrVersion
	}
	r := reader{b: b[1:]}
	at := r.next(maxSecond)
	for i := -1; len(r.b) > 0 && r.err == nil; {
		i += int(r.next(Buckets))
		n := r.next(MostPerBucket * unit)
		if r.err == nil && (i < 0 || i >= Buckets || n == 0 || s.weight[i] != 0) {
			r.err = errors.New("recovery sketch: buckets out of order")
		}
		if r.err == nil {
			s.weight[i] = float32(n) / unit
		}
	}
	if r.err == nil && at == 0 && s.Weight() > 0 {
		r.err = errors.New("recovery sketch: weights of no time")
	}
	if r.err != nil {
		return Sketch{}, r.err
	}
	s.at = int64(at)
	return s, nil
}

// maxSecond is in the year 2514; a time in the future lets what is older fade.
const maxSecond = 1 << 34

type reader struct {
	b   []byte
	err error
}

// next reads one number of at most most.
func (r *reader) next(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if r.err == nil && (n <= 0 || v > most) {
		r.err = errors.New("recovery sketch: cut off, or a number is too large")
	}
	if r.err != nil {
		return 0
	}
	r.b = r.b[n:]
	return v
}
