package control

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/control/attest"
	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/identity/spiffe"
)

// issuing is an authority whose certificates are counted.
type issuing struct {
	attest.Authority
	issued, failed atomic.Uint64
}

// Sign implements attest.Authority.
func (i *issuing) Sign(ctx context.Context, csr []byte, id spiffe.ID, ttl time.Duration, now time.Time) (*ca.Issued, error) {
	out, err := i.Authority.Sign(ctx, csr, id, ttl, now)
	if err != nil {
		i.failed.Add(1)
	} else {
		i.issued.Add(1)
	}
	return out, err
}

func (i *issuing) count() (issued, failed uint64) { return i.issued.Load(), i.failed.Load() }
