package http1_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/proxy/http1"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// refused are requests that two implementations could read differently, or that no client sends.
var refused = []struct {
	name, text string
	want       error
}{
	{"CL.TE", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", http1.ErrLengthEncoding},
	{"TE.CL", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nG\r\n0\r\n\r\n", http1.ErrLengthEncoding},
	{"TE.TE", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n", http1.ErrEncoding},
	{"TE twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", http1.ErrEncoding},
	{"TE list", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", http1.ErrEncoding},
	{"TE identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", http1.ErrEncoding},
	{"TE xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", http1.ErrEncoding},
	{"TE empty", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", http1.ErrEncoding},
	{"TE vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \vchunked\r\n\r\n", http1.ErrFieldValue},
	{"TE on 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", http1.ErrEncoding},
	{"TE space before colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", http1.ErrFieldName},
	{"TE folded", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", http1.ErrEncoding},
	{"fold", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", http1.ErrFold},
	{"first line folded", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", http1.ErrFold},
	{"CL differs", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", http1.ErrLength},
	{"CL list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", http1.ErrLength},
	{"CL plus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", http1.ErrLength},
	{"CL minus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", http1.ErrLength},
	{"CL hex", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", http1.ErrLength},
	{"CL empty", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", http1.ErrLength},
	{"CL too big", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", http1.ErrLength},
	{"CL wraps", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\n", http1.ErrLength},
	{"bare LF in start line", "GET / HTTP/1.1\nHost: a\r\n\r\n", http1.ErrLineEnd},
	{"bare LF in field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", http1.ErrLineEnd},
	{"bare LF at end", "GET / HTTP/1.1\r\nHost: a\r\n\n", http1.ErrLineEnd},
	{"bare CR in value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz: 1\r\n\r\n", http1.ErrLineEnd},
	{"bare CR at end", "GET / HTTP/1.1\r\nHost: a\r\n\rX", http1.ErrLineEnd},
	{"NUL in value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", http1.ErrFieldValue},
	{"DEL in value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", http1.ErrFieldValue},
	{"no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", http1.ErrFieldName},
	{"empty name", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", http1.ErrFieldName},
	{"name not token", "GET / HTTP/1.1\r\nHost: a\r\nX(: x\r\n\r\n", http1.ErrFieldName},
	{"name not ASCII", "GET / HTTP/1.1\r\nHost: a\r\nX\xc3: x\r\n\r\n", http1.ErrFieldName},
	{"no Host", "GET / HTTP/1.1\r\n\r\n", http1.ErrHost},
	{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", http1.ErrHost},
	{"Host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", http1.ErrHost},
	{"Host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", http1.ErrHost},
	{"Host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", http1.ErrHost},
	{"Host bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", http1.ErrHost},
	{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrTarget},
	{"space in target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrVersion},
	{"tab in target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrTarget},
	{"fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrTarget},
	{"relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrTarget},
	{"bad escape", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrTarget},
	{"star for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrTarget},
	{"foreign scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrTarget},
	{"absolute with user", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrTarget},
	{"CONNECT without port", "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrTarget},
	{"CONNECT with body", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", http1.ErrNoBody},
	{"HTTP/0.9", "GET /\r\n\r\n", http1.ErrTarget},
	{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", http1.ErrVersion},
	{"HTTP/2.0", "PRI * HTTP/2.0\r\n\r\n", http1.ErrVersion},
	{"lower-case http", "GET / http/1.1\r\nHost: a\r\n\r\n", http1.ErrVersion},
	{"HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", http1.ErrLineEnd},
	{"method not token", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrStartLine},
	{"leading space", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", http1.ErrStartLine},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00", http1.ErrStartLine},
	{"two Upgrades", "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n", http1.ErrConnection},
	{"Connection names too many fields", "GET / HTTP/1.1\r\nHost: a\r\nConnection: " + strings.Repeat("a,", 33) + "\r\n\r\n", http1.ErrConnection},
	{"Connection not token", "GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n", http1.ErrConnection},
}

func TestRefused(t *testing.T) {
	for _, c := range refused {
		var h message.Head
		n, _, err := http1.ParseRequest([]byte(c.text), &h, http1.Limits{})
		if !errors.Is(err, c.want) || n != 0 {
			t.Errorf("%s: n %d, error %v, want %v", c.name, n, err, c.want)
		}
	}
}

// render writes all that a parse found, so that two parses can be compared and expected.
func render(h *message.Head, f http1.Framing) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s|%s|%s|%s|%d %s|cl %d|", h.Version, h.Method, h.Scheme, h.Authority, h.Target, h.Status, h.Reason, h.ContentLength)
	for _, f := range h.Fields {
		fmt.Fprintf(&b, "%s=%s,", f.Name, f.Value)
	}
	fmt.Fprintf(&b, "|up %s|close %t te %t cont %t|%d %d", h.Upgrade, h.Close, h.Trailers, h.Continue, f.Kind, f.Length)
	return b.String()
}

var accepted = []struct{ name, text, want string }{
	{"plain", "GET /a?b=c HTTP/1.1\r\nHost: x:80\r\nAccept: */*\r\n\r\n",
		"1 GET|http|x:80|/a?b=c|0 |cl -1|Accept=*/*,|up |close false te false cont false|0 0"},
	{"length", "\r\nPOST / HTTP/1.1\r\nhost: x\r\ncontent-length: 7\r\nContent-Length:7 \r\nExpect: 100-Continue\r\n\r\n",
		"1 POST|http|x|/|0 |cl 7|Expect=100-Continue,|up |close false te false cont true|1 7"},
	{"length 0", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"1 POST|http|x|/|0 |cl 0||up |close false te false cont false|0 0"},
	{"chunked", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\tChunked\t\r\nTE: gzip, trailers\r\n\r\n",
		"1 POST|http|x|/|0 |cl -1||up |close false te true cont false|2 0"},
	{"hop by hop", "GET / HTTP/1.1\r\nX-A: 1\r\nHost: x\r\nKeep-Alive: 5\r\nConnection: close, x-a ,X-B\r\nProxy-Connection: z\r\nx-b: 2\r\nX-C: 3\r\n\r\n",
		"1 GET|http|x|/|0 |cl -1|X-C=3,|up |close true te false cont false|0 0"},
	{"upgrade", "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"1 GET|http|x|/|0 |cl -1||up websocket|close false te false cont false|0 0"},
	{"h2c", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n\r\n",
		"1 GET|http|x|/|0 |cl -1||up |close false te false cont false|0 0"},
	{"upgrade not asked", "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
		"1 GET|http|x|/|0 |cl -1||up |close false te false cont false|0 0"},
	{"1.0", "GET / HTTP/1.0\r\n\r\n", "0 GET|http||/|0 |cl -1||up |close true te false cont false|0 0"},
	{"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "0 GET|http||/|0 |cl -1||up |close false te false cont false|0 0"},
	{"absolute", "GET http://y:1/p?q HTTP/1.1\r\nHost: x\r\n\r\n", "1 GET|http|y:1|/p?q|0 |cl -1||up |close false te false cont false|0 0"},
	{"absolute https, Host first", "GET HTTPS://[::1] HTTP/1.1\r\nHost: x\r\n\r\n", "1 GET|https|[::1]|/|0 |cl -1||up |close false te false cont false|0 0"},
	{"absolute query", "GET http://y?q HTTP/1.1\r\nHost: x\r\n\r\n", "1 GET|http|y|/?q|0 |cl -1||up |close false te false cont false|0 0"},
	{"options", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "1 OPTIONS|http|x|*|0 |cl -1||up |close false te false cont false|0 0"},
	{"options absolute", "OPTIONS http://y HTTP/1.1\r\nHost: x\r\n\r\n", "1 OPTIONS|http|y|*|0 |cl -1||up |close false te false cont false|0 0"},
	{"connect", "CONNECT y:443 HTTP/1.1\r\nHost: x\r\n\r\n", "1 CONNECT|http|y:443||0 |cl -1||up |close false te false cont false|0 0"},
	{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "1 GET|http||/|0 |cl -1||up |close false te false cont false|0 0"},
	{"odd but legal", "M-SEARCH //a/%41?%zz\xc3\xa4 HTTP/1.1\r\nHost: x\r\nX:\t a\tb\xff \r\nY:\r\n\r\n",
		"1 M-SEARCH|http|x|//a/%41?%zz\xc3\xa4|0 |cl -1|X=a\tb\xff,Y=,|up |close false te false cont false|0 0"},
}

// TestAccepted also holds that bytes arriving one at a time mean the same as all at once.
func TestAccepted(t *testing.T) {
	for _, c := range accepted {
		var h message.Head
		p := []byte(c.text)
		for i := range p {
			if n, _, err := http1.ParseRequest(p[:i], &h, http1.Limits{}); n != 0 || err != nil {
				t.Fatalf("%s: %q: n %d, error %v, want incomplete", c.name, p[:i], n, err)
			}
		}
		n, f, err := http1.ParseRequest(append(p, "GET /next"...), &h, http1.Limits{})
		if err != nil || n != len(p) {
			t.Errorf("%s: n %d of %d, error %v", c.name, n, len(p), err)
		} else if got := render(&h, f); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

var responses = []struct {
	name, method, text, want string
	err                      error
}{
	{"plain", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\n", "1 ||||200 OK|cl 2|X=y,|up |close false te false cont false|1 2", nil},
	{"no phrase", "GET", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "1 ||||200 |cl 0||up |close false te false cont false|0 0", nil},
	{"no space", "GET", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", "1 ||||404 |cl 0||up |close false te false cont false|0 0", nil},
	{"until close", "GET", "HTTP/1.1 200 OK\r\n\r\n", "1 ||||200 OK|cl -1||up |close true te false cont false|3 0", nil},
	{"1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", "0 ||||200 OK|cl 2||up |close true te false cont false|1 2", nil},
	{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "1 ||||200 OK|cl 2||up |close false te false cont false|0 0", nil},
	{"HEAD chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1 ||||200 OK|cl -1||up |close false te false cont false|0 0", nil},
	{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "1 ||||304 Not Modified|cl 9||up |close false te false cont false|0 0", nil},
	{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", "1 ||||204 No Content|cl -1||up |close false te false cont false|0 0", nil},
	{"204 with body", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n", "", http1.ErrNoBody},
	{"100 chunked", "GET", "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", "", http1.ErrNoBody},
	{"100", "GET", "HTTP/1.1 100 Continue\r\n\r\n", "1 ||||100 Continue|cl -1||up |close false te false cont false|0 0", nil},
	{"101", "GET", "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "1 ||||101 S|cl -1||up websocket|close false te false cont false|0 0", nil},
	{"offers h2", "GET", "HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2\r\nContent-Length: 1\r\n\r\n", "1 ||||200 OK|cl 1||up |close false te false cont false|1 1", nil},
	{"CONNECT", "CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "1 ||||200 OK|cl -1||up |close false te false cont false|0 0", nil},
	{"CONNECT refused", "CONNECT", "HTTP/1.1 403 No\r\nContent-Length: 5\r\n\r\n", "1 ||||403 No|cl 5||up |close false te false cont false|1 5", nil},
	{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1 ||||200 OK|cl -1||up |close false te false cont false|2 0", nil},
	{"both", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "", http1.ErrLengthEncoding},
	{"differs", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\n", "", http1.ErrLength},
	{"status", "GET", "HTTP/1.1 2000 OK\r\n\r\n", "", http1.ErrStartLine},
	{"status 099", "GET", "HTTP/1.1 099 OK\r\n\r\n", "", http1.ErrStartLine},
	{"version", "GET", "HTTP/2 200 OK\r\n\r\n", "", http1.ErrVersion},
	{"bare LF", "GET", "HTTP/1.1 200 OK\nX: y\r\n\r\n", "", http1.ErrLineEnd},
}

func TestResponses(t *testing.T) {
	for _, c := range responses {
		var h message.Head
		n, f, err := http1.ParseResponse([]byte(c.text), []byte(c.method), &h, http1.Limits{})
		switch {
		case c.err != nil:
			if !errors.Is(err, c.err) {
				t.Errorf("%s: error %v, want %v", c.name, err, c.err)
			}
		case err != nil || n != len(c.text):
			t.Errorf("%s: n %d of %d, error %v", c.name, n, len(c.text), err)
		default:
			if got := render(&h, f); got != c.want {
				t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	head := func(n int) []byte {
		s := "GET / HTTP/1.1\r\nHost: a\r\nX: "
		return []byte(s + strings.Repeat("x", n-len(s)-4) + "\r\n\r\n")
	}
	var h message.Head
	for _, size := range []int{100, 5000, http1.DefaultHead} {
		l := http1.Limits{Head: size}
		if n, _, err := http1.ParseRequest(head(size), &h, l); n != size || err != nil {
			t.Errorf("head of %d: n %d, error %v", size, n, err)
		}
		if n, _, err := http1.ParseRequest(head(size+1), &h, l); n != 0 || err != http1.ErrHeadTooLarge {
			t.Errorf("head of %d with limit %d: n %d, error %v", size+1, size, n, err)
		}
		if n, _, err := http1.ParseRequest(head(size + 1)[:size-1], &h, l); n != 0 || err != nil {
			t.Errorf("a part of a head below the limit: n %d, error %v", n, err)
		}
		if n, _, err := http1.ParseRequest(head(size + 1)[:size], &h, l); n != 0 || err != http1.ErrHeadTooLarge {
			t.Errorf("a part of a head at the limit: n %d, error %v", n, err)
		}
	}
	many := func(n int) []byte {
		return []byte("GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", n-1) + "\r\n")
	}
	if _, _, err := http1.ParseRequest(many(http1.DefaultFields), &h, http1.Limits{}); err != nil {
		t.Error(err)
	}
	if _, _, err := http1.ParseRequest(many(http1.DefaultFields+1), &h, http1.Limits{}); err != http1.ErrTooManyFields {
		t.Errorf("too many fields: %v", err)
	}
}

// decode feeds p in pieces of size step, as a connection would.
func decode(b *http1.Body, p []byte, step int) (data []byte, used int, done bool, err error) {
	for end := min(step, len(p)); ; end = min(end+step, len(p)) {
		for {
			d, n, fin, e := b.Next(p[used:end])
			data = append(data, d...)
			used += n
			if e != nil || fin {
				return data, used, fin, e
			}
			if n == 0 {
				break
			}
		}
		if end == len(p) {
			return data, used, false, nil
		}
	}
}

func TestChunked(t *testing.T) {
	for _, c := range []struct {
		name, text, data, trailers, rest string
		err                              error
	}{
		{"plain", "5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\nnext", "hello world", "", "next", nil},
		{"trailers", "00a\r\n0123456789\r\n0\r\nX-A: 1\r\nContent-Length: 4\r\nTransfer-Encoding: z\r\nX-B:2 \r\n\r\n", "0123456789", "X-A=1,X-B=2,", "", nil},
		{"empty", "0\r\n\r\n", "", "", "", nil},
		{"no size", "\r\n", "", "", "", http1.ErrChunk},
		{"not hex", "g\r\n", "", "", "", http1.ErrChunk},
		{"prefix", "0x5\r\n", "", "", "", http1.ErrChunk},
		{"minus", "-1\r\n", "", "", "", http1.ErrChunk},
		{"space", "5 \r\nhello\r\n", "", "", "", http1.ErrChunk},
		{"too long", "1000000000000000\r\n", "", "", "", http1.ErrChunk},
		{"bare LF", "5\nhello\r\n", "", "", "", http1.ErrChunk},
		{"LF in extension", "5;a\nhello\r\n", "", "", "", http1.ErrChunk},
		{"CR in extension", "5;a\rb\r\nhello\r\n", "", "", "", http1.ErrChunk},
		{"data not ended", "5\r\nhelloX\r\n", "hello", "", "", http1.ErrChunk},
		{"LF after data", "5\r\nhello\n0\r\n\r\n", "hello", "", "", http1.ErrChunk},
		{"long extension", "5;" + strings.Repeat("a", http1.MaxChunkLine) + "\r\n", "", "", "", http1.ErrChunkOverhead},
		{"folded trailer", "0\r\nX: y\r\n z\r\n\r\n", "", "", "", http1.ErrFold},
		{"long trailers", "0\r\nX: " + strings.Repeat("y", http1.MaxTrailers) + "\r\n\r\n", "", "", "", http1.ErrTrailers},
	} {
		for _, step := range []int{1, 3, 1 << 20} {
			var b http1.Body
			b.Reset(http1.Framing{Kind: http1.BodyChunked})
			data, used, done, err := decode(&b, []byte(c.text), step)
			if !errors.Is(err, c.err) || string(data) != c.data {
				t.Errorf("%s by %d: data %q, error %v, want %q, %v", c.name, step, data, err, c.data, c.err)
			}
			if c.err != nil {
				continue
			}
			if !done || c.text[used:] != c.rest || b.End() != nil {
				t.Errorf("%s by %d: done %t, left %q, want %q", c.name, step, done, c.text[used:], c.rest)
			}
			got := ""
			for _, f := range b.Trailers().Fields {
				got += string(f.Name) + "=" + string(f.Value) + ","
			}
			if got != c.trailers {
				t.Errorf("%s by %d: trailers %q, want %q", c.name, step, got, c.trailers)
			}
		}
	}
	var b http1.Body
	b.Reset(http1.Framing{Kind: http1.BodyChunked})
	if _, _, _, err := decode(&b, []byte(strings.Repeat("1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n", 2000)), 1<<20); err != http1.ErrChunkOverhead {
		t.Errorf("many small chunks with extensions: %v", err)
	}
}

func TestBodyEnd(t *testing.T) {
	for _, c := range []struct {
		f    http1.Framing
		text string
		done bool
		end  error
	}{
		{http1.Framing{}, "x", true, nil},
		{http1.Framing{Kind: http1.BodyLength, Length: 3}, "ab", false, http1.ErrTruncated},
		{http1.Framing{Kind: http1.BodyLength, Length: 3}, "abcd", true, nil},
		{http1.Framing{Kind: http1.BodyLength}, "", true, nil},
		{http1.Framing{Kind: http1.BodyUntilClose}, "abcd", false, nil},
		{http1.Framing{Kind: http1.BodyChunked}, "1\r\na\r\n0\r\n", false, http1.ErrTruncated},
	} {
		var b http1.Body
		b.Reset(c.f)
		_, _, done, err := decode(&b, []byte(c.text), 1)
		if done != c.done || err != nil || b.End() != c.end {
			t.Errorf("%v %q: done %t, error %v, end %v", c.f, c.text, done, err, b.End())
		}
	}
}

func fields(pairs ...string) (f []message.Field) {
	for i := 0; i < len(pairs); i += 2 {
		f = append(f, message.Field{Name: []byte(pairs[i]), Value: []byte(pairs[i+1])})
	}
	return f
}

func TestAppendRequest(t *testing.T) {
	base := func(m, target, host string) message.Head {
		return message.Head{Method: []byte(m), Target: []byte(target), Authority: []byte(host), ContentLength: message.NoLength}
	}
	get := base("GET", "/a", "h")
	get.Fields = fields("A", "1", "Host", "evil", "content-length", "9", "Transfer-Encoding", "chunked", "b\r\nc", "2", "D", "x\r\nSmuggled: 1", "E", "nul\x00", "Expect", "100-continue", "", "x")
	get.Close, get.Trailers, get.Upgrade = true, true, []byte("websocket")
	post := base("POST", "", "h")
	for _, c := range []struct {
		h    message.Head
		f    http1.Framing
		want string
	}{
		{get, http1.Framing{}, "GET /a HTTP/1.1\r\nHost: h\r\nA: 1\r\nExpect: 100-continue\r\nTE: trailers\r\nUpgrade: websocket\r\nConnection: upgrade, TE, close\r\n\r\n"},
		{post, http1.Framing{}, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"},
		{post, http1.Framing{Kind: http1.BodyLength, Length: 7}, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n"},
		{post, http1.Framing{Kind: http1.BodyChunked}, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{post, http1.Framing{Kind: http1.BodyUntilClose}, ""},
		{base("CONNECT", "", "h:1"), http1.Framing{}, "CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"},
		{base("GET", "/ HTTP/1.1\r\nX: y", "h"), http1.Framing{}, ""},
		{base("GET", "/", "h\r\nX: y"), http1.Framing{}, ""},
		{base("GET ", "/", "h"), http1.Framing{}, ""},
	} {
		if got := string(http1.AppendRequest(nil, &c.h, c.f)); got != c.want {
			t.Errorf("\n got %q\nwant %q", got, c.want)
		}
	}
}

func TestAppendResponse(t *testing.T) {
	head := func(status int) message.Head {
		return message.Head{Version: message.HTTP11, Status: status, ContentLength: message.NoLength}
	}
	with := head(200)
	with.Reason, with.Fields, with.Version = []byte("Fine\r\n"), fields("X", "y", "Connection", "x"), message.HTTP10
	h304 := head(304)
	h304.ContentLength = 5
	for _, c := range []struct {
		h    message.Head
		f    http1.Framing
		want string
	}{
		{with, http1.Framing{Kind: http1.BodyLength, Length: 0}, "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"},
		{head(200), http1.Framing{Kind: http1.BodyUntilClose}, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"},
		{head(204), http1.Framing{Kind: http1.BodyLength}, "HTTP/1.1 204 No Content\r\n\r\n"},
		{h304, http1.Framing{}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"},
		{head(299), http1.Framing{Kind: http1.BodyChunked}, "HTTP/1.1 299 \r\nTransfer-Encoding: chunked\r\n\r\n"},
		{head(99), http1.Framing{}, ""},
	} {
		if got := string(http1.AppendResponse(nil, &c.h, c.f)); got != c.want {
			t.Errorf("\n got %q\nwant %q", got, c.want)
		}
	}
	last := message.Head{Fields: fields("X", "y", "Content-Length", "3")}
	if got := string(http1.AppendLastChunk(http1.AppendChunk(http1.AppendChunk(nil, []byte("0123456789abcdef")), nil), &last)); got != "10\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\n" {
		t.Errorf("chunks: %q", got)
	}
}

// TestNoAllocation: the steady state of a request and its response.
func TestNoAllocation(t *testing.T) {
	req := []byte("POST /a/b?c=d HTTP/1.1\r\nHost: reviews:9080\r\nUser-Agent: x\r\nAccept: */*\r\nConnection: x-y, keep-alive\r\nX-Y: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: v\r\n\r\n")
	resp := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: now\r\nContent-Length: 3\r\n\r\nabc")
	var h message.Head
	var b http1.Body
	out := make([]byte, 0, 4096)
	run := func() {
		n, f, err := http1.ParseRequest(req, &h, http1.Limits{})
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		out = http1.AppendRequest(out[:0], &h, f)
		b.Reset(f)
		for done := false; !done; {
			var data []byte
			var k int
			if data, k, done, err = b.Next(req[n:]); err != nil {
				t.Fatal(err)
			}
			n += k
			out = http1.AppendChunk(out, data)
		}
		out = http1.AppendLastChunk(out, b.Trailers())
		_, f, err = http1.ParseResponse(resp, h.Method, &h, http1.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		out = http1.AppendResponse(out[:0], &h, f)
	}
	run()
	if n := testing.AllocsPerRun(200, run); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	p := []byte("GET /productpage?u=normal HTTP/1.1\r\nHost: productpage:9080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nX-Request-Id: 0123456789abcdef0123456789abcdef\r\nCookie: session=abcdef\r\n\r\n")
	var h message.Head
	var out []byte
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		_, f, _ := http1.ParseRequest(p, &h, http1.Limits{})
		out = http1.AppendRequest(out[:0], &h, f)
	}
}

var hopFields = map[string]bool{"Host": true, "Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true,
	"Upgrade": true, "Http2-Settings": true, "Content-Length": true, "Transfer-Encoding": true}

// sameFields compares h's fields with what net/http read, hop-by-hop fields aside.
func sameFields(t *testing.T, h *message.Head, std http.Header) {
	t.Helper()
	mine := http.Header{}
	for _, f := range h.Fields {
		k := textproto.CanonicalMIMEHeaderKey(string(f.Name))
		mine[k] = append(mine[k], string(f.Value))
	}
	named := map[string]bool{}
	for _, v := range std["Connection"] {
		for tok := range strings.SplitSeq(v, ",") {
			named[textproto.CanonicalMIMEHeaderKey(strings.Trim(tok, " \t"))] = true
		}
	}
	for k, v := range std {
		if hopFields[k] || named[k] && k != "Expect" || k == "Trailer" {
			continue
		}
		if k == "Cache-Control" && mine[k] == nil {
			continue // net/http makes one from Pragma
		}
		if fmt.Sprint(mine[k]) != fmt.Sprint(v) {
			t.Fatalf("field %s: %q, net/http has %q", k, mine[k], v)
		}
	}
	for k := range mine {
		if std[k] == nil && k != "Trailer" {
			t.Fatalf("field %s is not in net/http's reading", k)
		}
	}
}

func readBody(p []byte, f http1.Framing) ([]byte, bool, error) {
	var b http1.Body
	b.Reset(f)
	data, _, done, err := decode(&b, p, 1<<20)
	return data, done || f.Kind == http1.BodyUntilClose, err
}

// FuzzRequest: what we accept net/http accepts and reads alike; what we write again means the same; and it
// makes no difference where the input is cut.
func FuzzRequest(f *testing.F) {
	for _, c := range accepted {
		f.Add([]byte(c.text))
	}
	for _, c := range refused {
		f.Add([]byte(c.text))
	}
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX: y\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var h message.Head
		n, fr, err := http1.ParseRequest(p, &h, http1.Limits{})
		var cut message.Head
		for i := 0; i < min(len(p), 300); i++ {
			k, _, e := http1.ParseRequest(p[:i], &cut, http1.Limits{})
			if e != nil && err == nil && n > 0 { // a long input without an end of a head is not looked at
				t.Fatalf("refused %q (%v), accepted with what follows", p[:i], e)
			}
			if k != 0 && k != n {
				t.Fatalf("%q: head of %d, with more input %d", p[:i], k, n)
			}
		}
		if err != nil || n == 0 {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(p, []byte("\r\n")))))
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", p[:n], err)
		}
		if r.Method != string(h.Method) || r.Host != string(h.Authority) || r.ProtoMinor != int(h.Version) {
			t.Fatalf("%q: %s %s, net/http %s %s", p[:n], h.Method, h.Authority, r.Method, r.Host)
		}
		if uri := r.URL.RequestURI(); r.Method != "CONNECT" && r.RequestURI[0] == '/' && r.RequestURI != string(h.Target) {
			t.Fatalf("target %q, net/http %q (%q)", h.Target, r.RequestURI, uri)
		}
		sameFields(t, &h, r.Header)
		data, done, err := readBody(p[n:], fr)
		std, stdErr := io.ReadAll(r.Body)
		if err == nil && done && (stdErr != nil || !bytes.Equal(std, data)) {
			t.Fatalf("%q: body %q, net/http %q, %v", p, data, std, stdErr)
		}
		again(t, &h, fr)
	})
}

// again writes h and reads it back.
func again(t *testing.T, h *message.Head, f http1.Framing) {
	t.Helper()
	h.Version = message.HTTP11
	out := http1.AppendRequest(nil, h, f)
	var h2 message.Head
	n, f2, err := http1.ParseRequest(out, &h2, http1.Limits{Head: 1 << 20, Fields: 1000})
	if err != nil || n != len(out) {
		t.Fatalf("own output %q: n %d, %v", out, n, err)
	}
	h.Scheme = h2.Scheme
	if h.ContentLength < 0 && h2.ContentLength == 0 {
		h.ContentLength = 0 // stated for POST, PUT and PATCH
	}
	if a, b := render(h, f), render(&h2, f2); a != b {
		t.Fatalf("written and read again:\n%s\n%s\n%q", a, b, out)
	}
}

// FuzzResponse is FuzzRequest's twin.
func FuzzResponse(f *testing.F) {
	for _, c := range responses {
		f.Add([]byte(c.text+"hello"), c.method)
	}
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "GET")
	f.Fuzz(func(t *testing.T, p []byte, method string) {
		var h message.Head
		n, fr, err := http1.ParseResponse(p, []byte(method), &h, http1.Limits{})
		if err != nil || n == 0 {
			return
		}
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(p)), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", p[:n], err)
		}
		if r.StatusCode != h.Status || r.ProtoMinor != int(h.Version) {
			t.Fatalf("%q: %d, net/http %d", p[:n], h.Status, r.StatusCode)
		}
		sameFields(t, &h, r.Header)
		if h.Status == 101 || method == "CONNECT" {
			return
		}
		data, done, err := readBody(p[n:], fr)
		std, stdErr := io.ReadAll(r.Body)
		if err == nil && done && (stdErr != nil || !bytes.Equal(std, data)) {
			t.Fatalf("%q: body %q, net/http %q, %v", p, data, std, stdErr)
		}
	})
}
