package exchange

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 asks for it
	"encoding/base64"
	"encoding/binary"

	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// WebSocket over HTTP/2 (RFC 8441 section 5) has no Sec-WebSocket-Key and no Sec-WebSocket-Accept; over HTTP/1.1 (RFC 6455)
// it must. Where the two sides of this proxy differ it plays the part that is missing.

// handshake is what was done about it.
type handshake struct {
	asked   [24]byte // the key that was made here; 0: none
	accepts [28]byte // what the client is to be told, or the upstream has to answer
	told    bool     // the client is
}

const (
	fieldKey    = "sec-websocket-key"
	fieldAccept = "sec-websocket-accept"
)

var (
	nameKey    = []byte("Sec-WebSocket-Key")
	nameAccept = []byte("Sec-WebSocket-Accept")
)

// shake adapts an offer to switch to WebSocket to the connection that it goes out on.
func (x *Exchange) shake(c upstream.Conn) {
	if !message.EqualFold(x.head.Upgrade, "websocket") {
		return
	}
	key := x.head.Get(fieldKey)
	switch _, old := c.(*upstream.HTTP1); {
	case old && key == nil && x.version == message.HTTP2:
		var raw [16]byte
		binary.LittleEndian.PutUint64(raw[:], x.w.random.Uint64())
		binary.LittleEndian.PutUint64(raw[8:], x.w.random.Uint64())
		base64.StdEncoding.Encode(x.asked[:], raw[:])
		x.accepts = accept(x.asked[:])
		x.head.Add(nameKey, x.asked[:])
	case !old && key != nil && x.foreign():
		x.accepts, x.told = accept(key), true
		x.head.Remove(fieldKey)
	}
}

// accept answers Sec-WebSocket-Accept for a key.
func accept(key []byte) (a [28]byte) {
	sum := sha1.Sum(append(append([]byte(nil), key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...)) //nolint:gosec // see above
	base64.StdEncoding.Encode(a[:], sum[:])
	return a
}

// shaken completes the handshake for the client. It answers why the switch has failed.
func (x *Exchange) shaken(h *message.Head) failure.Reason {
	switch {
	case x.told:
		h.Remove(fieldAccept)
		h.Add(nameAccept, x.accepts[:])
	case x.asked[0] != 0:
		if !bytes.Equal(h.Get(fieldAccept), x.accepts[:]) {
			return failure.UpstreamProtocol
		}
		h.Remove(fieldAccept)
	}
	return failure.None
}
