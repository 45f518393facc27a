package downstream

import "fmt"

// Balance checks, for tests, that flow control of an HTTP/2 connection gives back what it has to (http2.Conn.Balance), and
// that streams and memory are within their bounds. idle: no exchange of the worker is under way.
func (u *conn2) Balance(idle bool) error {
	missing, err := u.h2.Balance()
	switch {
	case err != nil:
		return err
	case idle && missing != 0:
		return fmt.Errorf("%d bytes of the connection's window were not given back", missing)
	case u.h2.Streams() > int(u.cfg.MaxStreams):
		return fmt.Errorf("%d streams, %d are allowed", u.h2.Streams(), u.cfg.MaxStreams)
	}
	return nil
}
