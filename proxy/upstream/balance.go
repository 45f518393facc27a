package upstream

import "fmt"

// Balance checks, for tests, that flow control gives back what it has to; see http2.Conn.Balance.
func (u *HTTP2) Balance() error {
	missing, err := u.h2.Balance()
	if err == nil && u.open == 0 && missing != 0 {
		err = fmt.Errorf("%d bytes of the connection's window were not given back", missing)
	}
	return err
}
