package server

import (
	"errors"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/recovery"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// Bounds of what a proxy tells of recoveries.
const (
	maxRecovered = 64 // destinations in one message
	maxOutages   = 4  // of each
	maxAttempts  = 1 << 32
)

// readRecovered reads what a proxy has learned. A sketch of another version is passed over.
func readRecovered(m *tullepb.Recovered) (out []recovery.Report, err error) {
	if len(m.GetOf()) > maxRecovered {
		return nil, fmt.Errorf("recoveries of %d destinations, at most %d are taken", len(m.GetOf()), maxRecovered)
	}
	for _, one := range m.GetOf() {
		if _, err := model.ParsePortName(one.GetCluster()); err != nil {
			return nil, fmt.Errorf("recovery of %.80q: %w", one.GetCluster(), err)
		}
		r := recovery.Report{Cluster: one.GetCluster(), Made: min(one.GetMade(), maxAttempts), Refused: min(one.GetRefused(), maxAttempts),
			Left: min(max(one.GetLeft(), 0), maxAttempts) - 1}
		if r.Learned, err = recovery.DecodeLearned(one.GetLearned()); err != nil {
			if errors.Is(err, recovery.ErrVersion) {
				continue
			}
			return nil, fmt.Errorf("recovery of %s: %w", one.GetCluster(), err)
		}
		if len(one.GetLast()) > maxOutages {
			return nil, fmt.Errorf("recovery of %s: %d outages, at most %d are taken", one.GetCluster(), len(one.GetLast()), maxOutages)
		}
		for _, o := range one.GetLast() {
			lasted := min(max(o.GetLasted(), 0), maxLasted.Milliseconds())
			r.Last = append(r.Last, recovery.Outage{Ended: time.UnixMilli(o.GetEnded()), Lasted: time.Duration(lasted) * time.Millisecond})
		}
		out = append(out, r)
	}
	return out, nil
}

// maxLasted bounds what is believed of one outage.
const maxLasted = 24 * time.Hour
