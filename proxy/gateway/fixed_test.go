package gateway_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
)

// fixed is a server that answers every head with the same bytes and allocates nothing for it.
func fixed(t *testing.T, answer []byte) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf, n := make([]byte, 4096), 0
				for {
					k, err := c.Read(buf[n:])
					if err != nil {
						return
					}
					if n += k; bytes.HasSuffix(buf[:n], endOfHead) {
						n = 0
						if _, err := c.Write(answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

var endOfHead = []byte("\r\n\r\n")
