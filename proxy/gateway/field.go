package gateway

import (
	"fmt"
	"slices"

	"github.com/tulle-mesh/tulle/model"
)

// FieldError is an error about an object of the bootstrap. Whoever has the file can say on which line it stands.
type FieldError struct {
	Field string // path of the object: "static_resources.listeners[0].filter_chains[1]"
	Err   error
}

func (e *FieldError) Error() string { return e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// aboutListener says which listener of the bootstrap err is about; one that came over ADS has no place in a file.
// part is the path from there, "" for all of it.
func (g *Gateway) aboutListener(name, part string, err error) error {
	i := slices.IndexFunc(g.cfg.Bootstrap.Listeners, func(l model.Listener) bool { return l.Name == name })
	if i < 0 {
		return err
	}
	return &FieldError{fmt.Sprintf("static_resources.listeners[%d]%s", i, part), err}
}

// aboutCluster is aboutListener for a cluster.
func (g *Gateway) aboutCluster(name model.PortName, part string, err error) error {
	i := slices.IndexFunc(g.cfg.Bootstrap.Clusters, func(c model.Cluster) bool { return c.Name == name })
	if i < 0 {
		return err
	}
	return &FieldError{fmt.Sprintf("static_resources.clusters[%d]%s", i, part), err}
}
