package http2

// Stream is one request and its response. It belongs to its Conn; after its end calls with it do nothing,
// until it is given back by Release.
type Stream struct {
	User any // the owner's
	id   uint32
}

// ID answers the stream identifier; a Stream that was released and reused has another one.
func (s *Stream) ID() uint32 { return s.id }

// SendEnded reports whether our side is complete.
func (s *Stream) SendEnded() bool { return false }

// RecvEnded reports whether the peer's side is complete.
func (s *Stream) RecvEnded() bool { return false }

// Closed reports whether the stream is over.
func (s *Stream) Closed() bool { return false }

// SendWindow answers how many body bytes Data would take now as far as the stream alone decides.
func (s *Stream) SendWindow() int { return 0 }
