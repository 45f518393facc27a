package control

import (
	"context"
	"path/filepath"
	"time"

	"github.com/tulle-mesh/tulle/control/attest"
	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/trust"
)

// authority is who signs the certificates of the mesh.
type authority interface {
	attest.Authority
	trust.Authority
}

// openAuthority opens it.
func (p *Plane) openAuthority(_ context.Context, trustDomain string) (authority, error) {
	own, err := ca.Open(ca.Config{Dir: filepath.Join(p.cfg.DataDir, "ca"), TrustDomain: trustDomain,
		Root: p.cfg.RootTTL, Intermediate: p.cfg.IntermediateTTL, Leaf: p.cfg.IdentityTTL}, time.Now())
	if err != nil {
		return nil, err
	}
	return attest.Local{CA: own}, nil
}
