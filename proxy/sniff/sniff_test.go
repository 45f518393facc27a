package sniff_test

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/proxy/sniff"
)

var classified = []struct {
	text string
	want sniff.Verdict
}{
	{"", sniff.Incomplete},
	{"G", sniff.Incomplete},
	{"GET", sniff.Incomplete},
	{"GET ", sniff.Incomplete},
	{"GET /", sniff.Incomplete},
	{"GET / ", sniff.Incomplete},
	{"GET / HTTP/1", sniff.Incomplete},
	{"GET / HTTP/1.", sniff.HTTP1},
	{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", sniff.HTTP1},
	{"OPTIONS * HTTP/1.0\r\n", sniff.HTTP1},
	{"CONNECT a:1 HTTP/1.1\r\n", sniff.HTTP1},
	{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00", sniff.HTTP2},
	{"PRI * HTTP/2.0\r\n", sniff.Incomplete},
	{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", sniff.Opaque},
	{"P", sniff.Incomplete},
	{"PING\r\n", sniff.Opaque},                         // Redis, inline
	{"*1\r\n$4\r\nPING\r\n", sniff.Opaque},             // Redis
	{"EHLO mail.example\r\n", sniff.Opaque},            // SMTP
	{"SSH-2.0-OpenSSH_9.6\r\n", sniff.Opaque},          // SSH
	{"\x00\x00\x00\x08\x04\xd2\x16\x2f", sniff.Opaque}, // PostgreSQL, SSLRequest
	{"\x10\x20\x00\x04MQTT", sniff.Opaque},
	{"GET / SPDY/3", sniff.Opaque},
	{"GET / HTTP/2", sniff.Opaque},
	{"GET /\r\n", sniff.Opaque},
	{"GET  / HTTP/1.1\r\n", sniff.Opaque},
	{" GET / HTTP/1.1\r\n", sniff.Opaque},
	{"a-method-that-is-longer-than-any / HTTP/1.1", sniff.Opaque},
	{"GET /" + strings.Repeat("x", 40<<10), sniff.Opaque},
	{"\x16", sniff.TLS},
	{"\x16\x03\x01\x02\x00\x01", sniff.TLS},
	{"\x16\x03\x01\x02\x00\x02", sniff.Opaque},
	{"\x16\x04", sniff.Opaque},
}

func TestClassify(t *testing.T) {
	for _, c := range classified {
		if got := sniff.Classify([]byte(c.text)); got != c.want {
			t.Errorf("%.40q: %v, want %v", c.text, got, c.want)
		}
	}
}

func TestVersion(t *testing.T) {
	for text, want := range map[string]sniff.Verdict{
		"": sniff.Incomplete, "P": sniff.Incomplete, "PR": sniff.Incomplete, "PO": sniff.HTTP1, "\x00": sniff.HTTP1, "G": sniff.HTTP1,
		sniff.Preface: sniff.HTTP2,
	} {
		if got := sniff.Version([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// FuzzClassify: an answer never changes with more bytes, and nothing complete that net/http reads as
// HTTP/1.x with a method in capitals is missed.
func FuzzClassify(f *testing.F) {
	for _, c := range classified {
		f.Add([]byte(c.text))
	}
	f.Add([]byte("\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x02\x13\x01\x01\x00\x00\x11\x00\x2b\x00\x01\x00\x00\x00\x08\x00\x06\x00\x00\x03a.b"))
	f.Fuzz(func(t *testing.T, p []byte) {
		whole := sniff.Classify(p)
		for i := range min(len(p), 200) {
			v := sniff.Classify(p[:i])
			if v == sniff.TLS && whole == sniff.Opaque && i < 6 {
				continue // both are relayed
			}
			if v != sniff.Incomplete && v != whole {
				t.Fatalf("%q is %v, %q is %v", p[:i], v, p, whole)
			}
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(p)))
		if err == nil && r.ProtoMajor == 1 && r.ProtoMinor < 10 && len(r.Method) <= 24 && strings.HasPrefix(r.Proto, "HTTP/1.") {
			if line, _, _ := bytes.Cut(p, []byte("\n")); len(line) < 30<<10 && bytes.Count(line, []byte(" ")) == 2 && !bytes.ContainsAny(line, "\t\x7f") && whole != sniff.HTTP1 {
				t.Fatalf("%q is %v, net/http reads a request", p, whole)
			}
		}
	})
}
