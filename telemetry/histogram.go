package telemetry

import (
	"math/bits"
	"time"
)

// The latency histogram: logarithmic buckets, 64 per power of two, from 1 µs to 36 minutes. A bucket is at
// most 1/64 of its value wide, so a quantile is wrong by 0.8 % at most (two digits are right, the third
// nearly); below 64 µs a bucket is 1 µs. All histograms have the same buckets, so they can be merged.
const (
	subBits    = 6
	SubBuckets = 1 << subBits // per power of two
	Octaves    = 26
	Buckets    = Octaves * SubBuckets
	maxMicros  = 1<<31 - 1
)

// Bucket answers the index of the bucket that d falls into; it is always below Buckets.
func Bucket(d time.Duration) int {
	us := uint64(max(d, 0)) / 1000
	us = min(us, maxMicros)
	e := max(bits.Len64(us)-subBits-1, 0)
	return e<<subBits + int(us>>e)
}

// BucketMid answers the middle of a bucket.
func BucketMid(i int) time.Duration {
	if i < 2*SubBuckets {
		return time.Duration(i)*time.Microsecond + 500*time.Nanosecond
	}
	e := i>>subBits - 1
	low := uint64(i-e<<subBits) << e
	return time.Duration(low)*time.Microsecond + time.Duration(uint64(1)<<e)*time.Microsecond/2
}

// Histogram is a snapshot of a latency histogram: the buckets that are not empty, in ascending order. It is a
// value of its owner: not safe for concurrent use.
type Histogram struct {
	Index []uint16      `json:"i,omitempty"`
	Count []uint64      `json:"n,omitempty"` // of the bucket at the same place of Index
	Sum   time.Duration `json:"sum_ns"`
}

// Append adds a bucket; i must be above every index that is there.
func (h *Histogram) Append(i int, n uint64) {
	if n > 0 {
		h.Index = append(h.Index, uint16(i))
		h.Count = append(h.Count, n)
	}
}

// Observe adds one observation. It is for tests and small tools; proxies count in place.
func (h *Histogram) Observe(d time.Duration) {
	h.Merge(Histogram{Index: []uint16{uint16(Bucket(d))}, Count: []uint64{1}, Sum: d})
}

// Total answers the number of observations.
func (h *Histogram) Total() uint64 {
	var n uint64
	for _, c := range h.Count {
		n += c
	}
	return n
}

// Merge adds the observations of o.
func (h *Histogram) Merge(o Histogram) {
	h.combine(o, func(a, b uint64) uint64 { return a + b }, o.Sum)
}

// Sub takes away the observations of an earlier snapshot of the same histogram. Where the earlier one has
// more, because the proxy began again, what is there stays.
func (h *Histogram) Sub(o Histogram) {
	h.combine(o, func(a, b uint64) uint64 {
		if b > a {
			return a
		}
		return a - b
	}, -o.Sum)
	h.Sum = max(h.Sum, 0)
}

func (h *Histogram) combine(o Histogram, f func(a, b uint64) uint64, sum time.Duration) {
	out := Histogram{Sum: h.Sum + sum}
	a, b := 0, 0
	for a < len(h.Index) || b < len(o.Index) {
		switch {
		case b == len(o.Index) || a < len(h.Index) && h.Index[a] < o.Index[b]:
			out.Append(int(h.Index[a]), f(h.Count[a], 0))
			a++
		case a == len(h.Index) || o.Index[b] < h.Index[a]:
			out.Append(int(o.Index[b]), f(0, o.Count[b]))
			b++
		default:
			out.Append(int(h.Index[a]), f(h.Count[a], o.Count[b]))
			a++
			b++
		}
	}
	*h = out
}

// Quantile answers the value below which a share q (0 to 1) of the observations lies, 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	total := h.Total()
	if total == 0 {
		return 0
	}
	rank := uint64(q * float64(total))
	rank = min(rank, total-1)
	var seen uint64
	for i, n := range h.Count {
		if seen += n; seen > rank {
			return BucketMid(int(h.Index[i]))
		}
	}
	return 0
}
