package exchange

import (
	"net/netip"

	"github.com/tulle-mesh/tulle/proxy/message"
)

// logged is what the access log tells and nobody else needs.
type logged struct {
	details  string       // RESPONSE_CODE_DETAILS, where the reason does not say it
	answered message.Head // fields of the response
	aarena   []byte
	closing  message.Head // fields of its trailers
	carena   []byte
	heard    bool // answered is of this exchange
	closed   bool // closing is
}

// keepForLog keeps what the access log will tell of a response's head or trailers.
func (x *Exchange) keepForLog(h *message.Head, trailers bool) {
	if x.origin.Logs == nil {
		return
	}
	if trailers {
		x.carena = x.origin.Logs.Keep(h, true, &x.closing, x.carena)
		x.closed = true
	} else {
		x.aarena = x.origin.Logs.Keep(h, false, &x.answered, x.aarena)
		x.heard = true
	}
}

// log writes the exchange to the chain's access logs.
func (x *Exchange) log() {
	if x.origin.Logs == nil || x.origin.Conn == nil || x.shadow.on {
		return
	}
	e := &x.w.entry
	e.Record, e.Conn, e.Client, e.Version = &x.rec, x.origin.Conn, x.caller, x.spoken()
	e.Request, e.Received, e.Details = &x.head, x.whole, x.details
	e.Response, e.Trailers, e.Upstream = nil, nil, netip.AddrPort{}
	if x.count > 0 {
		e.Upstream = x.target.Address
	}
	if x.heard {
		e.Response = &x.answered
	}
	if x.closed {
		e.Trailers = &x.closing
	}
	x.origin.Logs.Put(e)
}

// spoken answers the version that the client speaks on its connection.
func (x *Exchange) spoken() message.Version { return x.head.Version }
