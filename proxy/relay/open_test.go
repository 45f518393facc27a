package relay_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/tulle-mesh/tulle/proxy/relay"
)

var opens = []relay.Open{
	{Port: 80},
	{Port: 3306, Silent: true},
	{Port: 65535, Wanted: netip.MustParseAddrPort("198.18.0.7:5432"), Source: netip.MustParseAddrPort("[fd00::1]:40000"), RequestID: []byte("abc"), Silent: true},
}

func TestOpenRoundTrip(t *testing.T) {
	for _, o := range opens {
		p := relay.AppendOpen([]byte("before"), &o)[6:]
		for i := range p {
			if _, n, err := relay.ParseOpen(p[:i]); n != 0 || err != nil {
				t.Fatalf("%d of %d bytes: n %d, error %v", i, len(p), n, err)
			}
		}
		got, n, err := relay.ParseOpen(append(p, "data"...))
		if err != nil || n != len(p) || !same(got, o) {
			t.Errorf("%+v, n %d of %d, error %v; want %+v", got, n, len(p), err, o)
		}
	}
}

func same(a, b relay.Open) bool {
	return a.Port == b.Port && a.Wanted == b.Wanted && a.Source == b.Source && a.Silent == b.Silent && bytes.Equal(a.RequestID, b.RequestID)
}

func TestOpenRefused(t *testing.T) {
	for name, c := range map[string]struct {
		p    string
		want error
	}{
		"other byte":         {"\x02", relay.ErrOpen},
		"too long":           {"\x01\x02\x00", relay.ErrOpen},
		"no port":            {"\x01\x00\x00", relay.ErrOpen},
		"port 0":             {"\x01\x00\x04\x01\x02\x00\x00", relay.ErrOpen},
		"short port":         {"\x01\x00\x03\x01\x01\x00", relay.ErrOpen},
		"element over end":   {"\x01\x00\x03\x01\x02\x00", relay.ErrOpen},
		"half an element":    {"\x01\x00\x05\x01\x02\x00\x50\x02", relay.ErrOpen},
		"address of 5":       {"\x01\x00\x0b\x01\x02\x00\x50\x02\x05\x00\x00\x00\x00\x00", relay.ErrOpen},
		"must be understood": {"\x01\x00\x06\x01\x02\x00\x50\xff\x00", relay.ErrOpenUnknown},
	} {
		if _, n, err := relay.ParseOpen([]byte(c.p)); n != 0 || err != c.want {
			t.Errorf("%s: n %d, error %v, want %v", name, n, err, c.want)
		}
	}
	if o, n, err := relay.ParseOpen([]byte("\x01\x00\x07\x01\x02\x00\x50\x7f\x01x")); err != nil || n != 10 || o.Port != 80 {
		t.Errorf("an element of a later version: %+v, n %d, error %v", o, n, err)
	}
}

// FuzzOpen: what is read and written again is the same, and no answer changes with more bytes.
func FuzzOpen(f *testing.F) {
	for _, o := range opens {
		f.Add(relay.AppendOpen(nil, &o))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		o, n, err := relay.ParseOpen(p)
		for i := range min(len(p), 64) {
			if _, k, e := relay.ParseOpen(p[:i]); e != nil && err == nil || k != 0 && k != n {
				t.Fatalf("%q: %d, %v; with more: %d, %v", p[:i], k, e, n, err)
			}
		}
		if err != nil || n == 0 {
			return
		}
		again, k, err := relay.ParseOpen(relay.AppendOpen(nil, &o))
		if err != nil || k == 0 || !same(o, again) {
			t.Fatalf("%+v written and read is %+v, %v", o, again, err)
		}
	})
}
