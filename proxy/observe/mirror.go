package observe

import (
	"cmp"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/telemetry"
)

// Copies of requests (record.Record.Mirror) are counted apart: nobody was answered, so they say nothing about what callers
// of the service see.

// mirrorKey is one way in which copies for one service end.
type mirrorKey struct {
	destination model.ServiceName
	port        uint16
	status      int
	reason      string
}

// mirrored counts them: written by its loop, read by anybody.
type mirrored struct {
	key  mirrorKey
	n    atomic.Uint64
	next *mirrored
}

// mirror counts a copy that ended.
func (c *Recorder) mirror(r *record.Record) {
	k := mirrorKey{r.Destination, r.Port, r.Status, r.Reason}
	for m := c.mirrored.Load(); m != nil; m = m.next {
		if m.key == k {
			add(&m.n, 1)
			return
		}
	}
	if k.reason != telemetry.Other && !c.o.admit(k) {
		c.o.overflow.Add(1)
		other := record.Record{Destination: model.ServiceName{Name: telemetry.Other}, Reason: telemetry.Other}
		c.mirror(&other)
		return
	}
	m := &mirrored{key: k, next: c.mirrored.Load()}
	add(&m.n, 1)
	c.mirrored.Store(m)
}

func (x *exposition) mirrors(m telemetry.Metric, o *Observer) {
	sum := map[mirrorKey]uint64{}
	var all []mirrorKey
	for _, r := range *o.recorders.Load() {
		for m := r.mirrored.Load(); m != nil; m = m.next {
			if _, known := sum[m.key]; !known {
				all = append(all, m.key)
			}
			sum[m.key] += m.n.Load()
		}
	}
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b mirrorKey) int {
		return cmp.Or(cmp.Compare(label(a.destination), label(b.destination)), cmp.Compare(a.port, b.port), cmp.Compare(a.status, b.status), cmp.Compare(a.reason, b.reason))
	})
	x.head(m)
	for _, k := range all {
		x.series(m.Name, float64(sum[k]), "destination", label(k.destination), "port", strconv.Itoa(int(k.port)), "code", strconv.Itoa(k.status), "reason", k.reason)
	}
}
