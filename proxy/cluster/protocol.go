package cluster

import "github.com/tulle-mesh/tulle/model"

// Protocol answers what is known to be spoken here (docs/design/sniff.md, P): the declared protocol, else
// what the endpoints' proxies have learned and agree on, else ProtocolUnknown.
func (c *Cluster) Protocol() model.Protocol {
	if p := c.model.Load().Protocol; p != model.ProtocolUnknown {
		return p
	}
	learned := c.set.Load().learned
	if learned == model.ProtocolUnknown || c.contradicted.Load() >= 2 || c.doubted.Load() == uint32(learned)+1 {
		return model.ProtocolUnknown
	}
	return learned
}

// Contradict says that a connection proved the learned protocol p wrong. It counts as unknown until the
// endpoints' proxies report something else; after a second contradiction nothing learned is believed again:
// the port is mixed.
func (c *Cluster) Contradict(p model.Protocol) {
	if p.Declared() || p == model.ProtocolUnknown || c.doubted.Swap(uint32(p)+1) == uint32(p)+1 {
		return
	}
	c.contradicted.Add(1)
}

// agreed answers what every endpoint that has learned something has learned, ProtocolUnknown if they differ.
func agreed(all []*Endpoint) model.Protocol {
	p := model.ProtocolUnknown
	for _, e := range all {
		switch l := e.Model().Learned; {
		case l == model.ProtocolUnknown || l == p:
		case p == model.ProtocolUnknown:
			p = l
		default:
			return model.ProtocolUnknown
		}
	}
	return p
}
