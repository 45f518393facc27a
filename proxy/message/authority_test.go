package message_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/proxy/message"
)

func TestAuthority(t *testing.T) {
	for _, tc := range []struct {
		a          string
		want, port bool // accepted at all; where a port must be there
	}{
		{"a", true, false}, {"A.example:80", true, true}, {"my_service", true, false}, {"a:", true, false}, {"a:65535", true, true},
		{"[::1]", true, false}, {"[2001:db8::1]:443", true, true}, {"192.0.2.1", true, false}, {"a.", true, false},
		{"", false, false}, {":80", false, false}, {"a:b", false, false}, {"a:+8", false, false}, {"a:123456", false, false}, {"a:1:2", false, false},
		{"u@a", false, false}, {"a/b", false, false}, {"a b", false, false}, {"a,b", false, false}, {"a%41", false, false}, {"[::1", false, false}, {"[1.::1]", false, false}, {"[1:2:3]", false, false}, {"[::1::]", false, false}, {"[::ffff:1.2.3.4]", true, false},
		{"[::1]a", false, false}, {"[a]", false, false}, {"[fe80::1%eth0]", false, false}, {"a[1]", false, false}, {"\xc3\xa4", false, false}, {"a\x00", false, false},
	} {
		if got := message.Authority([]byte(tc.a), false); got != tc.want {
			t.Errorf("%q: %t", tc.a, got)
		}
		if got := message.Authority([]byte(tc.a), true); got != tc.port {
			t.Errorf("%q with a port: %t", tc.a, got)
		}
	}
}
