package proxyproto_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/proxy/proxyproto"
)

const sig = "\r\n\r\n\x00\r\nQUIT\n"

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// v2 writes a header by hand: command, family, and what follows the length.
func v2(command, family byte, rest string) string {
	return sig + string([]byte{command, family, byte(len(rest) >> 8), byte(len(rest))}) + rest
}

const (
	inet4 = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x30\x39\x01\xbb"
	inet6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x30\x39\x01\xbb"
)

// withCRC completes a header whose last TLV is an empty checksum.
func withCRC(h string) string {
	sum := crc32.Checksum([]byte(h), crc32.MakeTable(crc32.Castagnoli))
	return h[:len(h)-4] + string(binary.BigEndian.AppendUint32(nil, sum))
}

func TestParse(t *testing.T) {
	four := proxyproto.Header{Source: ap("192.0.2.1:12345"), Destination: ap("198.51.100.2:443")}
	six := proxyproto.Header{Source: ap("[2001:db8::1]:12345"), Destination: ap("[2001:db8::2]:443")}
	local := proxyproto.Header{Local: true}
	for _, c := range []struct {
		name, in string
		version  int
		want     proxyproto.Header
		err      error
	}{
		{"v1 TCP4", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n", 1, four, nil},
		{"v1 TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 12345 443\r\n", 1, six, nil},
		{"v1 mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 12345 443\r\n", 1, four, nil},
		{"v1 unknown", "PROXY UNKNOWN\r\n", 1, local, nil},
		{"v1 unknown and more", "PROXY UNKNOWN ffff::1 ::1 65535 65535\r\n", 1, local, nil},
		{"v1 longest", "PROXY UNKNOWN " + strings.Repeat("f", 107-16) + "\r\n", 1, local, nil},
		{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("f", 107-15) + "\r\n", 0, local, proxyproto.ErrLong},
		{"v1 bare line feed", "PROXY UNKNOWN\n", 0, local, proxyproto.ErrMalformed},
		{"v1 UDP", "PROXY UDP4 192.0.2.1 198.51.100.2 12345 443\r\n", 0, four, proxyproto.ErrMalformed},
		{"v1 wrong family", "PROXY TCP4 2001:db8::1 2001:db8::2 12345 443\r\n", 0, four, proxyproto.ErrMalformed},
		{"v1 two blanks", "PROXY TCP4  192.0.2.1 198.51.100.2 12345 443\r\n", 0, four, proxyproto.ErrMalformed},
		{"v1 trailing blank", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 443 \r\n", 0, four, proxyproto.ErrMalformed},
		{"v1 port too big", "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n", 0, four, proxyproto.ErrMalformed},
		{"v1 port with zeros", "PROXY TCP4 192.0.2.1 198.51.100.2 00443 443\r\n", 0, four, proxyproto.ErrMalformed},
		{"v1 signed port", "PROXY TCP4 192.0.2.1 198.51.100.2 +443 443\r\n", 0, four, proxyproto.ErrMalformed},
		{"v1 zone", "PROXY TCP6 fe80::1%eth0 2001:db8::2 12345 443\r\n", 0, four, proxyproto.ErrMalformed},
		{"v1 missing", "PROXY TCP4 192.0.2.1 198.51.100.2 12345\r\n", 0, four, proxyproto.ErrMalformed},
		{"HTTP", "GET / HTTP/1.1\r\n", 0, four, proxyproto.ErrNone},
		{"lower case", "proxy UNKNOWN\r\n", 0, four, proxyproto.ErrNone},
		{"blank lines", "\r\n\r\nGET / HTTP/1.1\r\n", 0, four, proxyproto.ErrNone},
		{"v2 INET", v2(0x21, 0x11, inet4), 2, four, nil},
		{"v2 INET6", v2(0x21, 0x21, inet6), 2, six, nil},
		{"v2 local", v2(0x20, 0, ""), 2, local, nil},
		{"v2 local with junk", v2(0x20, 0xff, "junk"), 2, local, nil},
		{"v2 unspec", v2(0x21, 0, ""), 2, local, nil},
		{"v2 TLVs", v2(0x21, 0x11, inet4+"\x02\x00\x03foo\x04\x00\x00\xea\x00\x01x"), 2, four, nil},
		{"v2 checksum", withCRC(v2(0x21, 0x11, inet4+"\x02\x00\x03foo\x03\x00\x04\x00\x00\x00\x00")), 2, four, nil},
		{"v2 wrong checksum", v2(0x21, 0x11, inet4+"\x03\x00\x04\x00\x00\x00\x01"), 0, four, proxyproto.ErrChecksum},
		{"v2 short checksum", v2(0x21, 0x11, inet4+"\x03\x00\x02\x00\x00"), 0, four, proxyproto.ErrMalformed},
		{"v2 TLV too long", v2(0x21, 0x11, inet4+"\x02\x00\x04foo"), 0, four, proxyproto.ErrMalformed},
		{"v2 half a TLV", v2(0x21, 0x11, inet4+"\x02\x00"), 0, four, proxyproto.ErrMalformed},
		{"v2 short addresses", v2(0x21, 0x21, inet4), 0, four, proxyproto.ErrMalformed},
		{"v2 UNIX", v2(0x21, 0x31, strings.Repeat("x", 216)), 0, four, proxyproto.ErrUnix},
		{"v2 UDP", v2(0x21, 0x12, inet4), 0, four, proxyproto.ErrDatagram},
		{"v2 unlisted family", v2(0x21, 0x10, inet4), 0, four, proxyproto.ErrMalformed},
		{"v2 of version 1", v2(0x11, 0x11, inet4), 0, four, proxyproto.ErrMalformed},
		{"v2 command", v2(0x22, 0x11, inet4), 0, four, proxyproto.ErrMalformed},
		{"v2 too long", sig + "\x21\x11\xff\xff", 0, four, proxyproto.ErrLong},
	} {
		h, n, err := proxyproto.Parse([]byte(c.in + "behind"))
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
			continue
		}
		if c.want.Version = c.version; err == nil && (h != c.want || n != len(c.in)) {
			t.Errorf("%s: %+v of %d bytes, want %+v of %d", c.name, h, n, c.want, len(c.in))
		}
		if err != nil && (n != 0 || h != proxyproto.Header{}) {
			t.Errorf("%s: an error with %+v of %d bytes", c.name, h, n)
		}
		for i := range len(c.in) { // every beginning of a good header waits for more
			if h, n, err := proxyproto.Parse([]byte(c.in[:i])); c.err == nil && (err != nil || n != 0 || h.Source.IsValid()) {
				t.Errorf("%s: first %d bytes: %d, %v", c.name, i, n, err)
			}
		}
	}
}

func TestAppend(t *testing.T) {
	for _, c := range []struct{ src, dst, v1 string }{
		{"192.0.2.1:0", "198.51.100.2:443", "PROXY TCP4 192.0.2.1 198.51.100.2 0 443\r\n"},
		{"[2001:db8::1]:65535", "[2001:db8::2]:7", "PROXY TCP6 2001:db8::1 2001:db8::2 65535 7\r\n"},
		{"[::ffff:192.0.2.1]:1", "198.51.100.2:2", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n"},
		{"192.0.2.1:1", "[2001:db8::2]:2", "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"},
		{"[fe80::1%eth0]:1", "[fe80::2]:2", "PROXY TCP6 fe80::1 fe80::2 1 2\r\n"},
	} {
		src, dst := ap(c.src), ap(c.dst)
		got := proxyproto.AppendV1([]byte("x"), src, dst)
		if string(got) != "x"+c.v1 {
			t.Errorf("%q", got)
		}
		for _, b := range [][]byte{got[1:], proxyproto.AppendV2(nil, src, dst)} {
			h, n, err := proxyproto.Parse(b)
			same := func(a, b netip.AddrPort) bool {
				return a.Port() == b.Port() && a.Addr() == b.Addr().Unmap().WithZone("")
			}
			if err != nil || n != len(b) || h.Local || !same(h.Source, src) || !same(h.Destination, dst) {
				t.Errorf("%q: %+v, %d, %v", b, h, n, err)
			}
		}
	}
	var none netip.AddrPort
	if got := proxyproto.AppendV1(nil, none, ap("192.0.2.1:1")); string(got) != "PROXY UNKNOWN\r\n" {
		t.Errorf("%q", got)
	}
	if got := proxyproto.AppendV2(nil, none, none); string(got) != v2(0x20, 0, "") {
		t.Errorf("%q", got)
	}
}

var line1 = regexp.MustCompile(`^PROXY (?:UNKNOWN( [^\n]*)?|TCP([46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n`)

// naive is a second reader of whole headers: with a regular expression and by slicing, never in parts.
func naive(p string) (h proxyproto.Header, n int) {
	if m := line1.FindStringSubmatch(p); m != nil && len(m[0]) <= proxyproto.MaxV1 {
		h.Version = 1
		if m[2] == "" {
			h.Local = true
			return h, len(m[0])
		}
		for i, to := range []*netip.AddrPort{&h.Source, &h.Destination} {
			a, err := netip.ParseAddr(m[3+i])
			port, err2 := strconv.ParseUint(m[5+i], 10, 16)
			if err != nil || err2 != nil || a.Is4() != (m[2] == "4") {
				return proxyproto.Header{}, 0
			}
			*to = netip.AddrPortFrom(a.Unmap(), uint16(port))
		}
		return h, len(m[0])
	}
	if len(p) < 16 || p[:12] != sig {
		return h, 0
	}
	n = 16 + int(p[14])*256 + int(p[15])
	if n > len(p) || n > proxyproto.MaxV2 {
		return h, 0
	}
	rest := p[16:n]
	switch fmt.Sprintf("%x", p[12:14])[:4] {
	case "2100":
		h.Local = true
	case "2111":
		if len(rest) < 12 {
			return h, 0
		}
		h.Source, h.Destination = raw(rest[:4], rest[8:10]), raw(rest[4:8], rest[10:12])
		rest = rest[12:]
	case "2121":
		if len(rest) < 36 {
			return h, 0
		}
		h.Source, h.Destination = raw(rest[:16], rest[32:34]), raw(rest[16:32], rest[34:36])
		rest = rest[36:]
	default:
		if p[12] == 0x20 {
			return proxyproto.Header{Version: 2, Local: true}, n
		}
		return h, 0
	}
	if h.Version = 2; !tlvs(p[:n], rest) {
		return proxyproto.Header{}, 0
	}
	return h, n
}

func raw(a, port string) netip.AddrPort {
	ip, _ := netip.AddrFromSlice([]byte(a))
	return netip.AddrPortFrom(ip.Unmap(), uint16(port[0])<<8|uint16(port[1]))
}

func tlvs(whole, rest string) bool {
	for rest != "" {
		if len(rest) < 3 || len(rest) < 3+int(rest[1])*256+int(rest[2]) {
			return false
		}
		value := rest[3 : 3+int(rest[1])*256+int(rest[2])]
		after := rest[3+len(value):]
		if rest[0] == 3 {
			blank := whole[:len(whole)-len(after)-len(value)] + "\x00\x00\x00\x00" + after
			if len(value) != 4 || crc32.Checksum([]byte(blank), crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32([]byte(value)) {
				return false
			}
		}
		rest = after
	}
	return true
}

// FuzzParse holds Parse to naive, and to itself: what was refused or taken stays so whatever follows, and nothing is
// decided from a part that the whole decides otherwise.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\nGET", "PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 1 2\r\n", "PROXY UNKNOWN x\r\n", "PROXY TCP4 1.1.1.1 1.1.1.1 0 0\n",
		v2(0x21, 0x11, inet4), v2(0x21, 0x21, inet6+"\x04\x00\x00"), v2(0x20, 0x31, ""), v2(0x21, 0x32, ""), v2(0x21, 0x00, "\x01\x00\x01h"),
		withCRC(v2(0x21, 0x11, inet4+"\x03\x00\x04\x00\x00\x00\x00")), "\r\n\r\n\x00\r\nQUIX",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, n, err := proxyproto.Parse([]byte(s))
		want, wantN := naive(s)
		if n != wantN || n > 0 && h != want {
			t.Fatalf("%+v of %d bytes (%v), want %+v of %d", h, n, err, want, wantN)
		}
		if n == 0 && err == nil && len(s) >= proxyproto.MaxV2 {
			t.Fatal("waits for more than its bound")
		}
		for i := range min(len(s), 300) {
			h2, n2, err2 := proxyproto.Parse([]byte(s[:i]))
			switch {
			case err2 != nil && err == nil:
				t.Fatalf("first %d bytes are refused (%v), all are not", i, err2)
			case n2 > 0 && (n2 != n || h2 != h):
				t.Fatalf("first %d bytes are %+v, all are %+v", i, h2, h)
			}
		}
		if n > 0 && !h.Local {
			for _, b := range [][]byte{proxyproto.AppendV1(nil, h.Source, h.Destination), proxyproto.AppendV2(nil, h.Source, h.Destination)} {
				if again, m, err := proxyproto.Parse(b); err != nil || m != len(b) || again.Source != h.Source || again.Destination != h.Destination {
					t.Fatalf("%+v came back as %+v: %v", h, again, err)
				}
			}
		}
	})
}
