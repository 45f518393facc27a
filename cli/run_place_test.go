package cli

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

func TestPlace(t *testing.T) {
	for _, x := range []struct{ said, remote, listens, address, host string }{
		{"", "", "127.0.0.1:15012", "127.0.0.1", "127.0.0.1"},
		{"", "", "[::1]:15012", "::1", "::1"},
		{"", "", "127.0.0.7:15012", "127.0.0.7", "127.0.0.7"},
		{"127.0.0.1", "", "0.0.0.0:15012", "127.0.0.1", "127.0.0.1"},
		{"", "127.0.0.1:15012", "", "127.0.0.1", "127.0.0.1"},
		{"203.0.113.7", "127.0.0.1:15012", "", "203.0.113.7", "0.0.0.0"}, // a NAT has it
		{"2001:db8::7", "", "127.0.0.1:15012", "2001:db8::7", "::"},
	} {
		b := &bootstrap.Bootstrap{Address: x.said, Control: bootstrap.Control{Address: x.remote}}
		host, err := place(b, x.listens)
		if err != nil || host != x.host || b.Address != x.address {
			t.Errorf("%+v: announced at %s, bound to %s, %v", x, b.Address, host, err)
		}
	}
	// A control plane for other machines: what is announced is bound, and can be connected to.
	for _, listens := range []string{"0.0.0.0:15012", "[::]:15012"} {
		b := &bootstrap.Bootstrap{}
		host, err := place(b, listens)
		if err != nil || host != b.Address {
			t.Fatalf("%s: announced at %s, bound to %s, %v", listens, b.Address, host, err)
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if a := netip.MustParseAddr(host); a.IsUnspecified() {
			t.Errorf("%s: announced at %s", listens, a)
		}
	}
	if _, err := place(&bootstrap.Bootstrap{}, "nonsense"); err == nil || !strings.Contains(err.Error(), "--address") {
		t.Errorf("an address that cannot be read: %v", err)
	}
}
