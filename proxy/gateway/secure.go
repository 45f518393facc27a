package gateway

import (
	"fmt"
	"reflect"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
)

// secure makes a cluster's connections over TLS: cluster.TLS.
type secure struct {
	*mtls.ClientContext
	shake *mtls.Handshakes
	model *model.ClientTLS
}

// Dial implements cluster.TLS.
func (s *secure) Dial(l loop.Loop, d loop.Dial, header []byte, host string, protocols []string, h loop.Handler) loop.Conn {
	return s.shake.DialWith(l, d, s.Config(host, protocols...), h, mtls.Options{Timeout: d.Timeout, Header: header})
}

// secureCluster gives a cluster the TLS of its model. What has not changed stays, and so do its connections.
func (g *Gateway) secureCluster(e *entry, m *model.Cluster) error {
	if m.TLS == nil {
		e.cluster.SetTLS(nil)
		return nil
	}
	if s, ok := e.cluster.TLS().(*secure); ok && reflect.DeepEqual(s.model, m.TLS) {
		return nil
	}
	c, err := mtls.NewClientContext(m.TLS, g.secrets)
	if err != nil {
		return g.aboutCluster(m.Name, ".transport_socket", fmt.Errorf("cluster %s: %w", m.Name, err))
	}
	e.cluster.SetTLS(&secure{c, g.shake, m.TLS})
	return nil
}
