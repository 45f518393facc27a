package http2

import "fmt"

// Balance holds the books of flow control against each other, for tests: of every open stream, what the peer may still
// send, what it is yet to be told and what the owner holds are together its window (RFC 9113 section 5.2). missing is how
// much of the connection's window has not been given back, in bytes: 0 when no owner of a stream holds any.
func (c *Conn) Balance() (missing int64, err error) {
	if c.err != nil {
		return 0, nil // it is over, nobody is told anything
	}
	missing = int64(c.cfg.ConnWindow) - c.recvWindow - int64(c.owed)
	var held int64
	for _, s := range c.streams.slots {
		if s == nil {
			continue
		}
		held += int64(s.held)
		window, sum := int64(c.cfg.InitialWindow), s.recvWindow+int64(s.owed)+int64(s.held)
		late := max(window, defaultWindow) // it began before the peer knew better
		if sum > late || !s.recvEnd && sum != window && sum != late {
			return missing, fmt.Errorf("stream %d: its window is %d, and %d can be sent, %d is not announced, %d is held", s.id, window, s.recvWindow, s.owed, s.held)
		}
	}
	if missing < held {
		return missing, fmt.Errorf("%d bytes of the window are out, the owners of streams hold %d", missing, held)
	}
	return missing, nil
}
