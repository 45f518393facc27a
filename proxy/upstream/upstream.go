// Package upstream is the client side of one connection: HTTP/1.1 keep-alive, or HTTP/2 multiplexed (between
// proxies over mTLS, or in the clear with prior knowledge to a program). It turns a message.Head and body bytes
// into the wire format and back, and says precisely how a stream failed. It promises that bytes are taken only
// as fast as they can be passed on (Stream.Data, Stream.Consumed) and that nothing is allocated per request in
// the steady state. It never chooses an endpoint, retries, or waits.
//
// Everything belongs to one loop; nothing here is safe for concurrent use. Start reading at Conn.
package upstream

import (
	"errors"
	"time"

	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/http1"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Conn is one connection that takes requests.
type Conn interface {
	// Open sends the head of a request; end says that no body follows. h is not kept, but h.Method must stay
	// valid until Stream.Done. ErrFull: the connection takes no more requests now. r is never called inside.
	Open(h *message.Head, end bool, r Receiver) (Stream, error)
	// Free reports whether Open would succeed now.
	Free() bool
	// Idle reports whether no request is on it.
	Idle() bool
	// Served answers how many requests were opened on it.
	Served() uint64
	// Retire ends the connection as soon as the requests on it are done.
	Retire()
	// Close ends the connection at once; open requests fail.
	Close()
}

// Stream is one request and its response on a Conn.
type Stream interface {
	// Data sends body bytes and answers how many were taken; Receiver.Writable is called when the rest fits.
	// end counts only when everything was taken.
	Data(p []byte, end bool) int
	// Trailers ends the request with trailers. All body bytes must have been taken before.
	Trailers(h *message.Head)
	// Consumed says that n bytes of the response body have been passed on.
	Consumed(n int)
	// Done gives the stream up. It is called exactly once, also after Failed; what was incomplete is reset.
	// Nothing is called on the receiver afterwards.
	Done()
	// Discard is Done, from inside Receiver.Head, for a response that nobody wants: what of it is here already is read, so that
	// nothing has to be reset.
	Discard()
}

// Receiver is told about the response. Head is called once for every 1xx and once for the final head; 101, and
// 2xx to CONNECT, begin a tunnel. h and p are valid only during the call. The response ends with Head, Data or
// Trailers that say so, or with Failed; after the first three Writable may still be called, and Failed when the rest of the
// request cannot be sent any more.
type Receiver interface {
	Head(h *message.Head, end bool)
	// Data must take all of p; the stream sends no more than the window until Stream.Consumed.
	Data(p []byte, end bool)
	Trailers(h *message.Head)
	// Failed: RefusedStream means that the upstream has certainly not acted on the request.
	Failed(reason failure.Reason, cause error)
	Writable()
}

// Owner is told about the life of a connection: the pool.
type Owner interface {
	// Up: the connection stands and takes requests.
	Up(c Conn)
	// Freed: a request is done; Free may have become true, Idle too.
	Freed(c Conn)
	// Ending: the connection takes no new requests any more, its open ones go on.
	Ending(c Conn)
	// Down: the connection is gone. f says why it could not be made; nil if Up was called. Called exactly once.
	Down(c Conn, f *failure.Failure)
}

// Shared is what all connections of a loop have in common.
type Shared struct {
	Limits http1.Limits
	Window int // response bytes under way per stream that were not consumed; default 64 KiB
	// Patience is after how long without a request an HTTP/1.1 connection is not used again, whatever was learned about its
	// server; default 4 s, because some programs (Node.js) close theirs after five.
	Patience time.Duration
	scratch  []byte // heads are written here before they go out
}

// ErrFull: the connection takes no more requests now.
var ErrFull = errors.New("upstream: connection takes no more requests now")

// errClosed is the cause of a failure when the peer ended the connection in an orderly way.
var errClosed = errors.New("upstream closed the connection")

// Longest answers Patience or its default.
func (s *Shared) Longest() time.Duration {
	if s.Patience <= 0 {
		return 4 * time.Second
	}
	return s.Patience
}

func (s *Shared) window() int {
	if s.Window <= 0 {
		return 64 << 10
	}
	return s.Window
}
