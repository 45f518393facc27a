package origdst_test

import (
	"net"
	"testing"

	"github.com/tulle-mesh/tulle/capture/origdst"
)

// TestNotTurned: a connection that nobody turned has no original destination, or its own where the kernel
// tracks connections; never another one. What nftables turns is tested where it is turned, in capture.
func TestNotTurned(t *testing.T) {
	for network, addr := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		ln, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		client, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		f, err := server.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got, err := origdst.Get(int(f.Fd()), network == "tcp6")
		if err == nil && got.String() != ln.Addr().String() {
			t.Errorf("%s: answered %v, listened on %v", network, got, ln.Addr())
		}
	}
	if _, err := origdst.Get(-1, false); err == nil {
		t.Error("no error for a descriptor that is none")
	}
}
