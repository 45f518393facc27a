package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/store"
)

// mesh is what MeshConfig says, read once.
type mesh struct {
	trustDomain string // "" when nobody said
	aliases     []string
}

func readMesh(ctx context.Context, s store.Store) (mesh, error) {
	var m mesh
	o, err := s.Get(ctx, store.Key{Kind: "MeshConfig", Name: v1alpha1.MeshConfigName})
	if errors.Is(err, store.ErrNotFound) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	var c v1alpha1.MeshConfig
	if err := json.Unmarshal(o.Value, &c); err != nil {
		return m, fmt.Errorf("MeshConfig: %w", err)
	}
	v1alpha1.Default(&c)
	return mesh{trustDomain: c.Spec.TrustDomain, aliases: c.Spec.TrustDomainAliases}, nil
}
