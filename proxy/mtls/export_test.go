package mtls

import (
	"testing"
	"time"
)

// SetLayout pretends that the fields of tls.Conn can or cannot be reached.
func SetLayout(t *testing.T, known bool) {
	old := layout
	l := layout()
	l.known = known
	layout = func() struct {
		known          bool
		rawInput, hand uintptr
	} {
		return l
	}
	t.Cleanup(func() { layout = old })
}

// SetTime sets a server context's clock.
func (c *ServerContext) SetTime(now func() time.Time) { c.now = now }

// SetTime sets a client context's clock.
func (c *ClientContext) SetTime(now func() time.Time) { c.now = now }
