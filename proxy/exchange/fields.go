package exchange

import (
	"bytes"
	"encoding/hex"
	"strconv"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Fields that proxies exchange about a request. They are believed only between proxies of the mesh and
// never reach a program in a request; of those in a response a program sees fieldReason.
const (
	fieldReason  = "tulle-reason" // response: made by a proxy, and why
	fieldHTTP    = "tulle-http"   // request: version the client spoke, "1" or "2"
	fieldMethod  = "tulle-method" // request: method of an offer to upgrade, if not GET
	fieldStatus  = "tulle-status" // response: an offer to upgrade was declined with this status
	fieldClass   = "tulle-class"  // request: how important it is, see admission.go
	fieldPrefix  = "tulle-"
	fieldRequest = "x-request-id"

	fieldForwarded = "x-forwarded-for" // published ports only
	fieldProto     = "x-forwarded-proto"
)

var (
	nameHTTP      = []byte(fieldHTTP)
	nameMethod    = []byte(fieldMethod)
	nameStatus    = []byte(fieldStatus)
	nameReason    = []byte(fieldReason)
	nameRequest   = []byte(fieldRequest)
	nameExpect    = []byte("expect")
	valueContinue = []byte("100-continue")
	nameForwarded = []byte(fieldForwarded)
	nameProto     = []byte(fieldProto)
	valueProto    = []byte("http")
	version1      = []byte("1")
	version2      = []byte("2")
)

// cleanse takes out of the request's head what only proxies may say, believing it if a proxy of the mesh has said it,
// and sees to it that the request has an identifier.
func (x *Exchange) cleanse() {
	keep := x.head.Fields[:0]
	var id, trace, contentType []byte
	for _, f := range x.head.Fields {
		switch len(f.Name) {
		case len("content-type"): // as long as x-request-id
			switch {
			case message.EqualFold(f.Name, "content-type"):
				contentType = f.Value
			case message.EqualFold(f.Name, fieldRequest) && id == nil:
				id = f.Value
			}
		case len(fieldTrace):
			if message.EqualFold(f.Name, fieldTrace) {
				trace = f.Value
			}
		}
		if len(f.Name) > len(fieldPrefix) && message.EqualFold(f.Name[:len(fieldPrefix)], fieldPrefix) {
			x.believe(f)
			continue
		}
		if x.reserved(f.Name) {
			continue
		}
		keep = append(keep, f)
	}
	x.head.Fields = keep
	if x.origin.Publish {
		x.forwarded()
	}
	if x.head.Continue && x.head.Version == message.HTTP2 {
		x.head.Add(nameExpect, valueContinue) // HTTP/2 carries it in Continue, HTTP/1 as a field
	}
	x.inherit(id, trace)
	if len(id) == 0 && x.origin.HTTP == nil {
		id = x.newID()
		x.head.Add(nameRequest, id)
	}
	x.rec.RequestID = id
	x.rec.Protocol = model.ProtocolHTTP
	if isGRPC(contentType) {
		x.rec.Protocol = model.ProtocolGRPC
	}
	if x.origin.Direction == record.Outbound && x.origin.HTTP == nil {
		v := version1
		if x.version == message.HTTP2 {
			v = version2
		}
		x.head.Add(nameHTTP, v)
		if x.upgrade && x.head.Upgrade != nil && x.rec.Method != "GET" {
			x.head.Add(nameMethod, x.head.Method)
		}
	}
}

// forwarded tells the program whom a request from outside the mesh came from, behind what proxies outside have said.
func (x *Exchange) forwarded() {
	from := x.from[:0]
	for _, f := range x.head.Fields {
		if message.EqualFold(f.Name, fieldForwarded) {
			from = append(append(from, f.Value...), ", "...)
		}
	}
	x.from = x.origin.Remote.Addr().Unmap().AppendTo(from)
	x.head.Remove(fieldForwarded)
	x.head.Add(nameForwarded, x.from)
	if !x.head.Has(fieldProto) {
		x.head.Add(nameProto, valueProto)
	}
}

// believe takes the meaning of a tulle-* field if it is from a proxy of the mesh.
func (x *Exchange) believe(f message.Field) {
	if !x.origin.Mesh {
		return
	}
	switch {
	case message.EqualFold(f.Name, fieldHTTP):
		x.version = message.HTTP11
		if bytes.Equal(f.Value, version2) {
			x.version = message.HTTP2
		}
	case message.EqualFold(f.Name, fieldClass):
		x.believeClass(f.Value)
	case message.EqualFold(f.Name, fieldMethod) && x.head.Upgrade != nil:
		x.head.Method = f.Value
		x.rec.Method = method(f.Value)
	default:
		x.heed(f)
	}
}

// stripResponse takes out of a response what only proxies may say: all of it if a program has said it; between
// proxies the status of an offer that was declined.
func (x *Exchange) stripResponse(h *message.Head) {
	keep := h.Fields[:0]
	for _, f := range h.Fields {
		if len(f.Name) > len(fieldPrefix) && message.EqualFold(f.Name[:len(fieldPrefix)], fieldPrefix) {
			if x.foreign() {
				continue
			}
			if message.EqualFold(f.Name, fieldStatus) {
				if n, err := strconv.Atoi(string(f.Value)); err == nil && n >= 200 && n <= 299 && h.Status == 101 {
					h.Status, h.Upgrade = n, nil
				}
				continue
			}
			if message.EqualFold(f.Name, fieldSpent) {
				x.heardSpent(f.Value)
				continue
			}
			if !message.EqualFold(f.Name, fieldReason) {
				continue
			}
		}
		keep = append(keep, f)
	}
	h.Fields = keep
}

// markDeclined says to another proxy that a 2xx declines an offer to upgrade: over HTTP/2 a 2xx would accept it (RFC
// 8441 section 4).
func (x *Exchange) markDeclined(h *message.Head) {
	if x.origin.Mesh && h.Status/100 == 2 {
		h.Add(nameStatus, strconv.AppendInt(nil, int64(h.Status), 10))
	}
}

// newID makes a random (version 4) UUID.
func (x *Exchange) newID() []byte {
	var b [16]byte
	hi, lo := x.w.random.Uint64(), x.w.random.Uint64()
	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	d := x.id[:]
	hex.Encode(d[0:8], b[0:4])
	hex.Encode(d[9:13], b[4:6])
	hex.Encode(d[14:18], b[6:8])
	hex.Encode(d[19:23], b[8:10])
	hex.Encode(d[24:36], b[10:16])
	d[8], d[13], d[18], d[23] = '-', '-', '-', '-'
	return d
}

// noteGRPC records grpc-status from a head or trailers.
func (x *Exchange) noteGRPC(h *message.Head) {
	if x.rec.Protocol != model.ProtocolGRPC {
		return
	}
	if v := h.Get("grpc-status"); len(v) > 0 && len(v) < 4 {
		n := 0
		for _, c := range v {
			if c < '0' || c > '9' {
				return
			}
			n = n*10 + int(c-'0')
		}
		x.rec.GRPC = n
	}
}

// isGRPC reports whether a content type is application/grpc or application/grpc+….
func isGRPC(v []byte) bool {
	const t = "application/grpc"
	return len(v) >= len(t) && message.EqualFold(v[:len(t)], t) && (len(v) == len(t) || v[len(t)] == '+' || v[len(t)] == ';')
}

// method answers b as a string without allocating for the usual ones.
func method(b []byte) string {
	switch string(b) {
	case "GET":
		return "GET"
	case "HEAD":
		return "HEAD"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "DELETE":
		return "DELETE"
	case "PATCH":
		return "PATCH"
	case "OPTIONS":
		return "OPTIONS"
	case "CONNECT":
		return "CONNECT"
	case "TRACE":
		return "TRACE"
	}
	return string(b)
}
