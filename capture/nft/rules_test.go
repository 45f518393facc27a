package nft_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/capture/nft"
)

// TestBuild holds the order of the rules: each line stands where it does for a reason given in Build.
func TestBuild(t *testing.T) {
	r := nft.Build(nft.Config{
		Outbound: 15001, DNS: 15053,
		Own:      []netip.Addr{netip.MustParseAddr("169.254.7.1"), netip.MustParseAddr("fd74::1")},
		Seeds:    []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		SeedPort: []uint16{40001, 40002},
	})
	want := `meta mark 0x74756c65 accept
udp dport 53 redirect to :15053
tcp dport 53 redirect to :15053
ip daddr 127.0.0.0/8 accept
ip6 daddr ::1/128 accept
ip daddr 169.254.7.1/32 accept
ip6 daddr fd74::1/128 accept
meta l4proto tcp redirect to :15001
--
meta mark 0x74756c65 accept
ct state established,related accept
meta nfproto ipv4 tcp dport 40001 reject with tcp reset
meta nfproto ipv6 tcp dport 40002 reject with tcp reset
ip daddr 127.0.0.0/8 accept
ip6 daddr ::1/128 accept
ip daddr 169.254.7.1/32 accept
ip6 daddr fd74::1/128 accept
meta l4proto tcp accept
reject
`
	var b strings.Builder
	for _, rule := range r.NAT {
		b.WriteString(rule.String() + "\n")
	}
	b.WriteString("--\n")
	for _, rule := range r.Filter {
		b.WriteString(rule.String() + "\n")
	}
	if b.String() != want {
		t.Errorf("got:\n%swant:\n%s", b.String(), want)
	}
}
