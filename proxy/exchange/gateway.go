package exchange

import (
	"bytes"
	"net/netip"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// What a foreign listener's chain (Origin.HTTP) does to requests besides what a sidecar does, in Envoy's order: the path
// is made normal, who the client is becomes known, fields are corrected; then the route is found (route.go).

// extra is what only an exchange with Origin.HTTP has.
type extra struct {
	caller netip.AddrPort // who the request is from, as trusted proxies say
	secure bool           // the client's connection is TLS, as the nearest trusted proxy says
	moved  bool           // the path was unescaped and the client is to ask for that
}

// receive does what comes before the route. It answers None, or why the request is refused; x.moved: a redirect.
func (x *Exchange) receive() failure.Reason {
	c := x.origin.HTTP
	if c.GRPCWeb {
		x.bridge()
	}
	x.identify(c)
	if string(x.head.Method) != "CONNECT" {
		if why := x.normalise(c); why != failure.None {
			return why
		}
		if c.StripAnyHostPort {
			x.head.Authority = withoutPort(x.head.Authority)
		}
	}
	if len(x.head.Authority) == 0 && len(x.head.Method) > 0 {
		return failure.BadRequest
	}
	x.certify(c)
	x.number(c)
	if c.Via != "" {
		x.head.Add(nameVia, x.keepString(c.Via))
	}
	return failure.None
}

// keepString copies s to memory that lasts as long as the exchange.
func (x *Exchange) keepString(s string) []byte {
	n := len(x.notes)
	x.notes = append(x.notes, s...)
	return x.notes[n:len(x.notes):len(x.notes)]
}

// identify finds out who the client is and says so to the upstream (x-forwarded-for, x-forwarded-proto).
func (x *Exchange) identify(c *model.HTTP) {
	conn := x.origin.Conn
	x.caller, x.secure = conn.Remote, conn.TLS != nil
	x.distrust(c.UseRemoteAddress)
	skip := int(c.XFFTrustedHops)
	if c.UseRemoteAddress {
		skip--
	}
	if skip >= 0 {
		if a, ok := x.saidBy(skip); ok {
			x.caller = netip.AddrPortFrom(a, 0)
		}
	}
	if c.UseRemoteAddress {
		x.tellExternal(x.caller.Addr().Unmap())
	}
	if c.UseRemoteAddress && !c.SkipXFFAppend {
		x.appendForwarded(conn.Remote.Addr().Unmap())
	}
	x.forwardedProto(c.UseRemoteAddress && c.XFFTrustedHops == 0)
}

// saidBy answers the address that stands skip places before the last in x-forwarded-for.
func (x *Exchange) saidBy(skip int) (netip.Addr, bool) {
	for i := len(x.head.Fields) - 1; i >= 0; i-- {
		if !message.EqualFold(x.head.Fields[i].Name, fieldForwarded) {
			continue
		}
		for list := x.head.Fields[i].Value; list != nil; {
			one := list
			if at := bytes.LastIndexByte(list, ','); at >= 0 {
				list, one = list[:at], list[at+1:]
			} else {
				list = nil
			}
			if skip--; skip < 0 {
				return address(bytes.TrimSpace(one))
			}
		}
	}
	return netip.Addr{}, false
}

// address reads an IP address without allocating.
func address(b []byte) (netip.Addr, bool) {
	if len(b) > 45 {
		return netip.Addr{}, false
	}
	var text [45]byte
	n := copy(text[:], b)
	a, err := netip.ParseAddr(string(text[:n]))
	return a.Unmap(), err == nil && a.Zone() == ""
}

// appendForwarded puts the peer's address behind what proxies before us have said.
func (x *Exchange) appendForwarded(a netip.Addr) {
	n := len(x.notes)
	last := -1
	for i := range x.head.Fields {
		if message.EqualFold(x.head.Fields[i].Name, fieldForwarded) {
			if last >= 0 {
				x.notes = append(x.notes, ',')
			}
			x.notes = append(x.notes, x.head.Fields[i].Value...)
			last = i
		}
	}
	if last >= 0 {
		x.notes = append(x.notes, ',')
		x.head.Remove(fieldForwarded)
	}
	x.notes = a.AppendTo(x.notes)
	x.head.Add(nameForwarded, x.notes[n:len(x.notes):len(x.notes)])
}

// forwardedProto sets x-forwarded-proto where it is not there, or anew where nobody before us is believed, and the
// scheme by it.
func (x *Exchange) forwardedProto(anew bool) {
	said := x.head.Get(fieldProto)
	if said == nil || anew {
		if said != nil {
			x.head.Remove(fieldProto)
		}
		said = schemeHTTP
		if x.secure {
			said = schemeHTTPS
		}
		x.head.Add(nameProto, said)
	}
	switch {
	case message.EqualFold(said, "https"):
		x.secure, x.head.Scheme = true, schemeHTTPS
	case message.EqualFold(said, "http"):
		x.secure, x.head.Scheme = false, schemeHTTP
	}
}

// number gives the request its identifier. An edge client's own is replaced unless it is to be kept.
func (x *Exchange) number(c *model.HTTP) {
	id := x.rec.RequestID
	if len(id) > 0 && c.UseRemoteAddress && !c.KeepRequestID {
		x.head.Remove(fieldRequest)
		id = nil
	}
	if len(id) == 0 && c.RequestID {
		id = x.newID()
		x.head.Add(nameRequest, id)
	}
	x.rec.RequestID = id
}

// upgradable reports whether the request's offer to switch protocols, or CONNECT, is allowed.
func (x *Exchange) upgradable() bool {
	name := x.head.Upgrade
	if name == nil {
		name = nameConnect
	}
	for _, u := range x.origin.HTTP.Upgrades {
		if message.EqualFold(name, u) {
			return true
		}
	}
	if x.route == nil {
		return false
	}
	for _, u := range x.route.Upgrades {
		if message.EqualFold(name, u) {
			return true
		}
	}
	return false
}

// withoutPort takes the port off an authority.
func withoutPort(a []byte) []byte {
	i := len(a)
	for i > 0 && a[i-1] >= '0' && a[i-1] <= '9' {
		i--
	}
	if i > 0 && a[i-1] == ':' && bytes.IndexByte(a[:i-1], ':') < 0 || i > 1 && a[i-1] == ':' && a[i-2] == ']' {
		return a[:i-1]
	}
	return a
}

// dress does to a response's head what the chain says; own: it was made here.
func (x *Exchange) dress(h *message.Head, own bool) {
	c := x.origin.HTTP
	switch {
	case c.ServerName == "" || c.ServerHeader == model.ServerPassThrough:
	case c.ServerHeader == model.ServerOverwrite:
		h.Remove("server")
		h.Add(nameServer, x.keepString(c.ServerName))
	case !h.Has("server"):
		h.Add(nameServer, x.keepString(c.ServerName))
	}
	if h.Status >= 200 && !h.Has("date") {
		n := len(x.notes)
		x.notes = append(x.notes, x.w.date()...)
		h.Add(nameDate, x.notes[n:len(x.notes):len(x.notes)])
	}
	if c.Via != "" && !own {
		h.Add(nameVia, x.keepString(c.Via))
	}
	if c.RequestIDResponse && len(x.rec.RequestID) > 0 {
		h.Remove(fieldRequest)
		h.Add(nameRequest, x.rec.RequestID)
	}
}

var (
	nameVia     = []byte("via")
	nameServer  = []byte("server")
	nameDate    = []byte("date")
	nameConnect = []byte("connect")
	schemeHTTP  = []byte("http")
	schemeHTTPS = []byte("https")
)
