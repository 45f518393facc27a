package pool

import (
	"fmt"

	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// Balance checks, for tests, that the pool's books agree: queues, connections, and flow control of those that speak
// HTTP/2. waiting is how many requests wait for a connection.
func (p *Pool) Balance() (waiting int, err error) {
	for t, h := range p.hosts {
		n := 0
		for w := h.head; w != nil; w = w.next {
			n++
		}
		if n != h.waiting || h.dialing < 0 || h.dialing > len(h.conns) || h.blanks < 0 {
			return 0, fmt.Errorf("%v: %d waiters are counted, %d wait; %d of %d connections are being made; %d blanks", t.Address, h.waiting, n, h.dialing, len(h.conns), h.blanks)
		}
		waiting += n
		for c := range h.conns {
			if u, ok := c.(*upstream.HTTP2); ok {
				if err := u.Balance(); err != nil {
					return waiting, fmt.Errorf("%v: %w", t.Address, err)
				}
			}
		}
	}
	return waiting, nil
}
