package gateway_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/proxyproto"
)

// slow writes a few bytes at a time.
type slow struct {
	net.Conn
	most int
}

func (s slow) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		k, err := s.Conn.Write(p[n:min(len(p), n+s.most)])
		if n += k; err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// TestPieces: a PROXY header, a ClientHello and what follows are understood however they are cut, be the TLS terminated
// here or passed on.
func TestPieces(t *testing.T) {
	ca := newAuthority(t)
	b := &model.Bootstrap{}
	static(b, "plain", origin(t, "plain"))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "passed") }))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.pair(ca.leaf("", "passed.test"))}}
	s.StartTLS()
	t.Cleanup(s.Close)
	static(b, "passed", netip.MustParseAddrPort(s.Listener.Addr().String()))
	ends, passes := httpChain("plain"), tcpChain("passed")
	ends.TLS, ends.Match.ServerNames = ca.server("ends.test"), []string{"ends.test"}
	passes.Match.ServerNames = []string{"passed.test"}
	l := listener("l", ends, passes)
	l.Inspect, l.InspectTimeout, l.ProxyProtocol = true, 5*time.Second, &model.AcceptProxyProtocol{V1: true, V2: true}
	b.Listeners = []model.Listener{l}
	at := start(t, b).Listening("l")[0]
	src, dst := netip.MustParseAddrPort("192.0.2.7:1234"), netip.MustParseAddrPort("198.51.100.1:443")
	for _, most := range []int{1, 3, 16, 100, 600, 100_000} {
		for name, want := range map[string]string{"ends.test": "plain HTTP/1.1 GET / ", "passed.test": "passed"} {
			raw := slow{dial(t, at, nil), most}
			if _, err := raw.Write(proxyproto.AppendV2(nil, src, dst)); err != nil {
				t.Fatal(err)
			}
			c := tls.Client(raw, &tls.Config{RootCAs: ca.pool(), ServerName: name, NextProtos: []string{"http/1.1"}})
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatalf("%s in pieces of %d: %v", name, most, err)
			}
			r, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatalf("%s in pieces of %d: %v", name, most, err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil || string(body) != want {
				t.Errorf("%s in pieces of %d: %q %v", name, most, body, err)
			}
			raw.Close()
		}
	}
}
