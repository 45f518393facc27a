package exchange

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// original answers where a request to a cluster of model.DiscoveryOriginal goes, zero if that is not known: what the
// cluster's request field says, an IP address and a port and nothing else, or, without the field, where the client's
// connection was going before it was turned to us. A field that says anything else, that is there twice, or that names
// the address this connection came to, is no address: Envoy would fall back to the connection's, or take the first.
func (x *Exchange) original(m *model.Cluster) (at netip.AddrPort) {
	if m.Original.Header != "" {
		switch v, n := x.only(m.Original.Header); n {
		case 0:
		case 1:
			if at = x.w.addressOf(v); x.origin.Conn != nil && at == x.origin.Conn.Local {
				return netip.AddrPort{}
			}
			return at
		default:
			return netip.AddrPort{}
		}
	}
	if x.origin.Turned {
		return x.origin.Wanted
	}
	return netip.AddrPort{}
}

// only answers the value of a field, and how many of its name there are.
func (x *Exchange) only(name string) (v []byte, n int) {
	for i := range x.head.Fields {
		if message.EqualFold(x.head.Fields[i].Name, name) {
			v = x.head.Fields[i].Value
			n++
		}
	}
	return v, n
}

// saidAddress is an address that a request has named.
type saidAddress struct {
	text string
	at   netip.AddrPort
}

// maxAddress is longer than any address with its port.
const maxAddress = 64

// addressOf reads an address without allocating for the one that was read last.
func (w *Worker) addressOf(v []byte) netip.AddrPort {
	if len(v) > maxAddress {
		return netip.AddrPort{}
	}
	if w.said.text != string(v) {
		w.said.text = string(v)
		w.said.at = netip.AddrPort{}
		if a, err := netip.ParseAddrPort(w.said.text); err == nil && a.Addr().Zone() == "" {
			w.said.at = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		}
	}
	return w.said.at
}
