package sniff_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/sniff"
)

// hello makes a real ClientHello; with a post-quantum key share it has more than 1.4 KB.
func hello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		_ = tls.Client(a, cfg).Handshake()
		a.Close()
	}()
	buf := make([]byte, 64<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func asking(name string, alpn ...string) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: alpn}
}

// records carries the message of a ClientHello in records of n bytes.
func records(p []byte, n int) (out []byte) {
	for msg := range slices.Chunk(p[5:], n) {
		out = append(out, 22, 3, 1, byte(len(msg)>>8), byte(len(msg)))
		out = append(out, msg...)
	}
	return out
}

func TestReadHello(t *testing.T) {
	for _, c := range []struct {
		name string
		alpn []string
	}{{"", nil}, {"shop.example", nil}, {"shop.example", []string{"h2", "http/1.1"}}, {"", []string{"istio"}}} {
		whole := hello(t, asking(c.name, c.alpn...))
		if len(whole) < 1400 {
			t.Fatalf("a ClientHello of %d bytes: no key share of X25519MLKEM768?", len(whole))
		}
		if sniff.Classify(whole) != sniff.TLS {
			t.Fatalf("a ClientHello is %v", sniff.Classify(whole))
		}
		for _, size := range []int{16 << 10, 1000, 100, 11} {
			p := records(whole, size)
			for i := range p {
				if h, n, err := sniff.ReadHello(p[:i]); n != 0 || err != nil || h.ServerName != "" || sniff.HelloBytes(p[:i]) != 0 {
					t.Fatalf("%d of %d bytes: %+v, %d, %v", i, len(p), h, n, err)
				}
			}
			h, n, err := sniff.ReadHello(append(slices.Clip(p), "behind"...))
			if err != nil || n != len(p) || h.ServerName != c.name || !slices.Equal(h.ALPN, c.alpn) {
				t.Errorf("records of %d: %+v, %d of %d, %v", size, h, n, len(p), err)
			}
		}
	}
}

func TestReadHelloRefuses(t *testing.T) {
	good := hello(t, asking("shop.example"))
	long := append([]byte{22, 3, 1, 0x40, 0, 1, 1, 0, 0}, make([]byte, 100)...)
	for name, c := range map[string]struct {
		p   string
		err error
	}{
		"HTTP":             {"GET / HTTP/1.1\r\n", sniff.ErrNoTLS},
		"another version":  {"\x16\x02", sniff.ErrNoTLS},
		"a ServerHello":    {"\x16\x03\x03\x00\x40\x02", sniff.ErrNoTLS},
		"an alert":         {"\x15\x03\x03\x00\x02", sniff.ErrNoTLS},
		"an empty record":  {"\x16\x03\x03\x00\x00", sniff.ErrHello},
		"a long record":    {"\x16\x03\x03\x40\x01", sniff.ErrHello},
		"a long message":   {string(long), sniff.ErrHelloLong},
		"an alert between": {string(records(good, 100)[:105]) + "\x15\x03\x03\x00\x02", sniff.ErrHello},
		"many tiny ones":   {string(records([]byte("-----\x01\x00\x3f\x00"+strings.Repeat("x", 4000)), 1)), sniff.ErrHelloLong},
		"nothing in it":    {"\x16\x03\x01\x00\x04\x01\x00\x00\x00", sniff.ErrHello},
		"half a cipher":    {"\x16\x03\x01\x00\x2b\x01\x00\x00\x27\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x01c\x00", sniff.ErrHello},
	} {
		if _, n, err := sniff.ReadHello([]byte(c.p)); n != 0 || !errors.Is(err, c.err) {
			t.Errorf("%s: %d, %v, want %v", name, n, err, c.err)
		}
	}
}

// wire gives p to whoever reads and forgets what is written.
type wire struct{ io.Reader }

func (wire) Write(p []byte) (int, error)      { return len(p), nil }
func (wire) Close() error                     { return nil }
func (wire) LocalAddr() net.Addr              { return nil }
func (wire) RemoteAddr() net.Addr             { return nil }
func (wire) SetDeadline(time.Time) error      { return nil }
func (wire) SetReadDeadline(time.Time) error  { return nil }
func (wire) SetWriteDeadline(time.Time) error { return nil }

var errSeen = errors.New("seen")

// FuzzReadHello: what crypto/tls reads from a ClientHello is what we read; what it does not take we may take for less,
// and a beginning is never decided otherwise than the whole.
func FuzzReadHello(f *testing.F) {
	for _, cfg := range []*tls.Config{
		asking("shop.example", "h2", "http/1.1"), asking(""),
		{ServerName: "a.b", InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}, MaxVersion: tls.VersionTLS12},
	} {
		p := hello(f, cfg)
		f.Add(p)
		f.Add(records(p, 200))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var want *tls.ClientHelloInfo
		_ = tls.Server(wire{bytes.NewReader(p)}, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			want = i
			return nil, errSeen
		}}).Handshake()
		h, n, err := sniff.ReadHello(p)
		odd := false // crypto/tls takes versions of records that nobody sends, and larger messages
		for q := p; len(q) >= 5; q = q[min(len(q), 5+int(binary.BigEndian.Uint16(q[3:]))):] {
			odd = odd || q[1] != 3 || q[2] > 4
		}
		switch {
		case want == nil || odd || errors.Is(err, sniff.ErrHelloLong):
		case n == 0:
			t.Fatalf("crypto/tls reads %q and %q, we nothing: %v", want.ServerName, want.SupportedProtos, err)
		case h.ServerName != want.ServerName || !slices.Equal(h.ALPN, want.SupportedProtos):
			t.Fatalf("crypto/tls reads %q and %q, we %+v", want.ServerName, want.SupportedProtos, h)
		}
		if n == 0 && err == nil && len(p) > 40<<10 {
			t.Fatal("waits for ever")
		}
		if err == nil && n > 0 && sniff.HelloBytes(p) != n {
			t.Fatalf("HelloBytes answers %d, ReadHello %d", sniff.HelloBytes(p), n)
		}
		for i := 0; i < min(len(p), 3000); i += 1 + i/50 {
			h2, n2, err2 := sniff.ReadHello(p[:i])
			if n2 > 0 && (n2 != n || h2.ServerName != h.ServerName) || err2 != nil && err == nil {
				t.Fatalf("%d bytes: %+v, %d, %v; all: %+v, %d, %v", i, h2, n2, err2, h, n, err)
			}
		}
	})
}
