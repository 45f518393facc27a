package mtls

import "testing"

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
