package selftest

import (
	"net/netip"
	"testing"
)

// TestProven: a proof counts for the address that the connection has, whatever port the kernel gave it on its way, and for no other
// address, challenge or secret.
func TestProven(t *testing.T) {
	secret, challenge := NewSecret(), []byte("0123456789abcdef")
	from := netip.MustParseAddrPort("10.1.2.3:40000")
	for name, c := range map[string]struct {
		proof []byte
		want  bool
	}{
		"as it is":         {Prove(secret, challenge, from), true},
		"another port":     {Prove(secret, challenge, netip.MustParseAddrPort("10.1.2.3:1")), true},
		"the last port":    {Prove(secret, challenge, netip.MustParseAddrPort("10.1.2.3:65535")), true},
		"another address":  {Prove(secret, challenge, netip.MustParseAddrPort("10.1.2.4:40000")), false},
		"another secret":   {Prove(NewSecret(), challenge, from), false},
		"another question": {Prove(secret, []byte("0123456789abcdeg"), from), false},
	} {
		if got := proven(secret, challenge, from, c.proof); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
