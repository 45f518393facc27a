package exchange

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/cluster"
	"github.com/tulle-mesh/tulle/proxy/router"
)

// Destination is one port of a service as the live configuration has it (live.Port). Both are read anew for every
// request.
type Destination interface {
	// Routes answers the table in force, nil while it is not known.
	Routes() *router.Table
	// Cluster answers the cluster of that name, nil while it is not known.
	Cluster(name model.PortName) *cluster.Cluster
}
