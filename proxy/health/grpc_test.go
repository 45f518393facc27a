package health_test

import (
	"encoding/binary"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tulle-mesh/tulle/proxy/health"
)

// oracle reads a HealthCheckResponse with protobuf's own reader.
func oracle(p []byte) (serving, ok bool) {
	if len(p) < 5 || p[0] != 0 || int(binary.BigEndian.Uint32(p[1:])) != len(p)-5 {
		return false, false
	}
	var status uint64
	for p = p[5:]; len(p) > 0; {
		num, typ, n := protowire.ConsumeTag(p)
		if n < 0 || typ == protowire.StartGroupType || typ == protowire.EndGroupType {
			return false, false
		}
		m := protowire.ConsumeFieldValue(num, typ, p[n:])
		if m < 0 || num == 1 && typ != protowire.VarintType {
			return false, false
		}
		if num == 1 {
			status, _ = protowire.ConsumeVarint(p[n:])
		}
		p = p[n+m:]
	}
	return int32(status) == 1, true
}

func TestQuestion(t *testing.T) {
	for service, want := range map[string]string{"": "\x00\x00\x00\x00\x00", "shop.Cart": "\x00\x00\x00\x00\x0b\x0a\x09shop.Cart"} {
		if got := string(health.AppendQuestion(nil, service)); got != want {
			t.Errorf("%q: %q, want %q", service, got, want)
		}
	}
}

func TestAnswer(t *testing.T) {
	for _, c := range []struct {
		body        string
		serving, ok bool
	}{
		{"\x00\x00\x00\x00\x02\x08\x01", true, true},
		{"\x00\x00\x00\x00\x02\x08\x02", false, true},
		{"\x00\x00\x00\x00\x00", false, true}, // UNKNOWN
		{"\x00\x00\x00\x00\x07\x12\x03abc\x08\x01", true, true},
		{"\x00\x00\x00\x00\x04\x08\x01\x08\x02", false, true},
		{"", false, false},
		{"\x01\x00\x00\x00\x02\x08\x01", false, false},     // compressed
		{"\x00\x00\x00\x00\x02\x08", false, false},         // cut
		{"\x00\x00\x00\x00\x02\x08\x01\x00", false, false}, // more than the frame
		{"\x00\x00\x00\x00\x02\x08\x81", false, false},
		{"\x00\x00\x00\x00\x02\x0a\x09", false, false},
	} {
		serving, err := health.ParseAnswer([]byte(c.body))
		if serving != c.serving || (err == nil) != c.ok {
			t.Errorf("%q: serving %v, %v", c.body, serving, err)
		}
	}
}

// FuzzAnswer holds ParseAnswer to protobuf's own reader.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"\x08\x01", "\x08\x02", "", "\x12\x03abc\x08\x01", "\x0d1234\x09" + "12345678", "\x0b\x0c", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		f.Add(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(s))), s...))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		want, ok := oracle(p)
		got, err := health.ParseAnswer(p)
		if got != want || (err == nil) != ok {
			t.Errorf("%q: %v %v, protobuf says %v %v", p, got, err, want, ok)
		}
	})
}
