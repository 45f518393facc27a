package resource

import (
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// EncodeService makes the tulle.v1 message of a service.
func EncodeService(s *model.Service) (*tullepb.Service, error) {
	m := &tullepb.Service{Name: s.Name.String(), Consumers: s.Consumers}
	if s.VIP4.IsValid() {
		m.Vip4 = s.VIP4.AsSlice()
	}
	if s.VIP6.IsValid() {
		m.Vip6 = s.VIP6.AsSlice()
	}
	for _, p := range s.Ports {
		m.Ports = append(m.Ports, &tullepb.ServicePort{Name: p.Name, Port: uint32(p.Port), Protocol: protocolName(p.Protocol)})
	}
	return m, nil
}

// protocolName answers "" for an unknown protocol: absent on the wire.
func protocolName(p model.Protocol) string {
	if p == model.ProtocolUnknown {
		return ""
	}
	return p.String()
}
