package grpc_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/grpc"
	"github.com/tulle-mesh/tulle/proxy/message"
)

func TestTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond,
		"6n": 6, "0S": 0, "99999999H": grpc.Forever, "99999999n": 99999999,
	} {
		if d, ok := grpc.ParseTimeout([]byte(text)); !ok || d != want {
			t.Errorf("%s: %v %v", text, d, ok)
		}
	}
	for _, text := range []string{"", "1", "S", "-1S", "1s", "123456789S", "1 S", "1.5S"} {
		if _, ok := grpc.ParseTimeout([]byte(text)); ok {
			t.Errorf("%q is a timeout", text)
		}
	}
	for range 1000 {
		d := time.Duration(rand.Uint64() >> (1 + rand.IntN(62)))
		b := grpc.AppendTimeout(nil, d)
		got, ok := grpc.ParseTimeout(b)
		if !ok || got > d || d-got > d/1e5+1 {
			t.Fatalf("%v became %s, read as %v %v", d, b, got, ok)
		}
	}
}

func TestContentTypes(t *testing.T) {
	for in, want := range map[string]string{
		"application/grpc-web": "application/grpc", "application/grpc-web+proto": "application/grpc+proto",
		"Application/GRPC-Web-Text+json": "application/grpc+json", "application/grpc-web-text; x=y": "application/grpc; x=y",
	} {
		w := grpc.ParseWeb([]byte(in))
		if got := string(w.AppendPlain(nil)); !w.On || got != want {
			t.Errorf("%s: %+v %s", in, w, got)
		}
	}
	for _, in := range []string{"", "application/grpc", "application/grpc-webby", "text/plain"} {
		if grpc.ParseWeb([]byte(in)).On {
			t.Errorf("%s is gRPC-Web", in)
		}
	}
	if got := grpc.AppendWeb(nil, []byte("application/grpc+proto"), true); string(got) != "application/grpc-web-text+proto" {
		t.Errorf("%s", got)
	}
	if got := grpc.AppendWeb(nil, []byte("text/html"), true); string(got) != "text/html" {
		t.Errorf("%s", got)
	}
}

func TestTrailers(t *testing.T) {
	h := message.Head{}
	h.Add([]byte("Grpc-Status"), []byte("0"))
	h.Add([]byte("grpc-message"), []byte("a\r\nb"))
	got := grpc.AppendTrailers([]byte("x"), &h)
	want := "x\x80\x00\x00\x00\x22" + "grpc-status:0\r\ngrpc-message:a  b\r\n"
	if string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// decodeNaively is the oracle: groups of four, each on its own.
func decodeNaively(p []byte) (out []byte, whole, ok bool) {
	for len(p) >= 4 {
		d, err := base64.StdEncoding.Strict().DecodeString(string(p[:4]))
		if err != nil || bytes.ContainsAny(p[:4], "\r\n") {
			return out, false, false
		}
		out, p = append(out, d...), p[4:]
	}
	return out, len(p) == 0, true
}

func FuzzText(f *testing.F) {
	f.Add([]byte("AAAAAAA=AQID"), uint64(1))
	f.Add([]byte("AA==AA==\n"), uint64(2))
	f.Fuzz(func(t *testing.T, p []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		want, whole, ok := decodeNaively(p)
		var d grpc.TextDecoder
		var got []byte
		var err error
		for rest := p; len(rest) > 0 && err == nil; {
			n := 1 + r.IntN(min(len(rest), 9))
			got, err = d.Append(got, rest[:n])
			rest = rest[n:]
		}
		if (err == nil) != ok {
			t.Fatalf("%q: %v, the oracle says %v", p, err, ok)
		}
		if ok && (!bytes.Equal(got, want) || d.End() != whole) {
			t.Fatalf("%q: %x %v, want %x %v", p, got, d.End(), want, whole)
		}
	})
}

func TestTextRoundTrip(t *testing.T) {
	for range 200 {
		var text, all []byte
		for range rand.IntN(5) {
			p := make([]byte, rand.IntN(50))
			for i := range p {
				p[i] = byte(rand.Uint32())
			}
			text, all = grpc.AppendText(text, p), append(all, p...)
		}
		var d grpc.TextDecoder
		got, err := d.Append(nil, text)
		if err != nil || !d.End() || !bytes.Equal(got, all) {
			t.Fatalf("%q: %x %v", text, got, err)
		}
	}
}

func FuzzTimeout(f *testing.F) {
	f.Add([]byte("10m"))
	f.Fuzz(func(t *testing.T, v []byte) {
		d, ok := grpc.ParseTimeout(v)
		if !ok {
			return
		}
		again, ok := grpc.ParseTimeout(grpc.AppendTimeout(nil, d))
		if !ok || again > d {
			t.Errorf("%q: %v, then %v %v", v, d, again, ok)
		}
	})
}

// FuzzTrailers: what a naive reader finds in the frame is what was written.
func FuzzTrailers(f *testing.F) {
	f.Add("grpc-status", "0", "grpc-message", "a b")
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		h := message.Head{}
		for _, kv := range [][2]string{{n1, v1}, {n2, v2}} {
			if kv[0] == "" || strings.ContainsAny(kv[0]+kv[1], "\r\n") || strings.Contains(kv[0], ":") {
				return // no codec lets them through
			}
			h.Add([]byte(kv[0]), []byte(kv[1]))
		}
		b := grpc.AppendTrailers(nil, &h)
		if b[0] != 0x80 || int(binary.BigEndian.Uint32(b[1:])) != len(b)-5 {
			t.Fatalf("frame %q", b[:5])
		}
		for i, line := range strings.SplitAfter(string(b[5:]), "\r\n") {
			if i == 2 {
				if line != "" {
					t.Fatalf("more than two lines: %q", line)
				}
				break
			}
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\r\n"), ":")
			if !ok || !message.EqualFold(h.Fields[i].Name, name) || value != string(h.Fields[i].Value) {
				t.Fatalf("%q of %q: %q", line, h.Fields[i].Name, h.Fields[i].Value)
			}
		}
	})
}
