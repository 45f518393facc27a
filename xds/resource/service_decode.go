package resource

import (
	"fmt"
	"math"
	"net/netip"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// DecodeService reads a packed tulle.v1.Service.
func DecodeService(a *anypb.Any) (*model.Service, error) {
	var m tullepb.Service
	if err := unpack(a, &m); err != nil {
		return nil, err
	}
	name, err := model.ParseServiceName(m.GetName())
	if err != nil {
		return nil, refuse("name", "%s", clip(err.Error()))
	}
	s := &model.Service{Name: name, Consumers: m.GetConsumers()}
	if s.VIP4, err = address("vip4", m.GetVip4(), 4); err != nil {
		return nil, err
	}
	if s.VIP6, err = address("vip6", m.GetVip6(), 16); err != nil {
		return nil, err
	}
	for i, p := range m.GetPorts() {
		path := fmt.Sprintf("ports[%d]", i)
		n, err := port(path+".port", p.GetPort())
		if err != nil {
			return nil, err
		}
		proto, err := protocol(path+".protocol", p.GetProtocol())
		if err != nil {
			return nil, err
		}
		s.Ports = append(s.Ports, model.ServicePort{Name: p.GetName(), Port: n, Protocol: proto})
	}
	return s, nil
}

func address(path string, b []byte, size int) (netip.Addr, error) {
	if len(b) == 0 {
		return netip.Addr{}, nil
	}
	a, _ := netip.AddrFromSlice(b)
	if len(b) != size {
		return netip.Addr{}, refuse(path, "%d bytes are not an address of %d", len(b), size)
	}
	return a, nil
}

func port(path string, n uint32) (uint16, error) {
	if n == 0 || n > math.MaxUint16 {
		return 0, refuse(path, "%d is not a port", n)
	}
	return uint16(n), nil
}

func protocol(path, name string) (model.Protocol, error) {
	if name == "" {
		return model.ProtocolUnknown, nil
	}
	p, ok := model.ParseProtocol(name)
	if !ok {
		return 0, refuse(path, "protocol %q is not known", clip(name))
	}
	return p, nil
}
