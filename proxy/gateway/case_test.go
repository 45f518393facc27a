package gateway_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
)

// verbatim is an HTTP/1.1 server that answers the bytes of the head that it was sent.
func verbatim(t *testing.T) netip.AddrPort {
	t.Helper()
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
				r := bufio.NewReader(c)
				var head strings.Builder
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					head.WriteString(line)
					if line == "\r\n" {
						break
					}
				}
				io.WriteString(c, "HTTP/1.1 200 Fine So Far\r\nX-AnSwEr: y\r\nConnection: close\r\n\r\n"+head.String())
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// TestCase: the case of field names, and the reason phrase, go from one HTTP/1.1 hop to the next as they are, whether or
// not the formatter that keeps them is asked for; HTTP/2 has lower case and no phrase.
func TestCase(t *testing.T) {
	b := &model.Bootstrap{}
	at := verbatim(t)
	for _, keep := range []bool{false, true} {
		name := map[bool]string{false: "default", true: "preserve"}[keep]
		static(b, name, at).Upstream.HTTP1.PreserveCase = keep
		c := httpChain(name)
		c.HTTP.HTTP1.PreserveCase = keep
		b.Listeners = append(b.Listeners, listener(name, c))
	}
	h2 := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Answer", r.Header.Get("x-asked")) }))
	h2.Config.Protocols = &http.Protocols{}
	h2.Config.Protocols.SetUnencryptedHTTP2(true)
	h2.Start()
	t.Cleanup(h2.Close)
	static(b, "h2", netip.MustParseAddrPort(h2.Listener.Addr().String())).Upstream.Version = model.UpstreamHTTP2
	b.Listeners = append(b.Listeners, listener("h2", httpChain("h2")))
	g := start(t, b)
	for _, name := range []string{"default", "preserve"} {
		got := heard(t, g.Listening(name)[0], "GET /x HTTP/1.1\r\nhOsT: a.test\r\nX-ASked: 1\r\nx-plain: 2\r\nConnection: close\r\n\r\n")
		for _, want := range []string{"HTTP/1.1 200 Fine So Far\r\n", "\r\nX-AnSwEr: y\r\n", "\r\nX-ASked: 1\r\n", "\r\nx-plain: 2\r\n", "\r\nx-request-id: "} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q lacks %q", name, got, want)
			}
		}
		r, err := http.NewRequest("GET", "http://a.test/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Asked", "1")
		w, err := client(t, g.Listening(name)[0], nil, "h2c").Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(w.Body)
		w.Body.Close()
		if err != nil || w.Header.Get("x-answer") != "y" || !strings.Contains(string(body), "\r\nx-asked: 1\r\n") {
			t.Errorf("%s, from HTTP/2: %v %q %v", name, w.Header, body, err)
		}
	}
	if got := heard(t, g.Listening("h2")[0], "GET /x HTTP/1.1\r\nHost: a.test\r\nX-ASked: 1\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") ||
		!strings.Contains(got, "\r\nx-answer: 1\r\n") {
		t.Errorf("to HTTP/2: %q", got)
	}
}

// heard answers everything that comes in answer to a request.
func heard(t *testing.T, at netip.AddrPort, request string) string {
	t.Helper()
	got, err := read(at, request)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
