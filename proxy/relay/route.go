package relay

import (
	"math/bits"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// Match answers the first route that takes a connection whose ClientHello names sni ("": none, or it is no TLS), nil if there
// is none.
func Match(routes []model.RelayRoute, sni string) *model.RelayRoute {
	for i := range routes {
		if len(routes[i].SNI) == 0 {
			return &routes[i]
		}
		for _, name := range routes[i].SNI {
			if served(name, sni) {
				return &routes[i]
			}
		}
	}
	return nil
}

// ByName reports whether the routes look at the server name: the ClientHello is then waited for.
func ByName(routes []model.RelayRoute) bool {
	for i := range routes {
		if len(routes[i].SNI) > 0 {
			return true
		}
	}
	return false
}

// served reports whether name, perhaps "*.suffix", stands for sni; "*.suffix" stands for any number of labels before it, one at
// least (Gateway API: Hostname).
func served(name, sni string) bool {
	if suffix, ok := strings.CutPrefix(name, "*"); ok {
		return len(sni) > len(suffix) && strings.EqualFold(sni[len(sni)-len(suffix):], suffix)
	}
	return strings.EqualFold(name, sni)
}

// Choose answers a route's backend for a number that is uniform over all of uint32, by weight; nil if it has none.
func Choose(r *model.RelayRoute, rnd uint32) *model.Backend {
	var sum uint64
	for i := range r.Backends {
		sum += uint64(r.Backends[i].Weight)
	}
	at, _ := bits.Mul64(uint64(rnd)<<32, sum)
	for i := range r.Backends {
		w := uint64(r.Backends[i].Weight)
		if at < w {
			return &r.Backends[i]
		}
		at -= w
	}
	return nil
}
