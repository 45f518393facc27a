// Package nft is the packet filter of a workload's network namespace: which traffic of the program is turned to the
// proxy, which passes, and which is refused. The rules are data that a pure function builds (Build) and that
// netlink brings into the kernel (Apply, which changes nothing outside its own table and must run in the
// namespace). No external command is run. Start reading at Build: the order of the rules is the design.
package nft

import (
	"fmt"
	"net/netip"
	"strings"
)

// Mark is the socket mark of the proxy's sockets inside the namespace. Setting it takes NET_ADMIN, which the
// program does not have.
const Mark = 0x74756c65

// Table is the name of the one table, of family inet.
const Table = "tulle"

// Action is what happens to a packet that a rule matches.
type Action uint8

// Actions.
const (
	Accept   Action = iota
	Redirect        // to Rule.To on 127.0.0.1 or ::1
	Reject          // the send fails with EPERM at once
	Reset           // TCP: the connect fails with ECONNREFUSED at once
)

// IP protocol numbers.
const (
	tcp = 6
	udp = 17
)

// Rule is one rule; it matches when all of its conditions hold. The zero value of a condition holds always.
type Rule struct {
	Marked      bool         // the socket has Mark
	Established bool         // conntrack state established or related
	Proto       uint8        // tcp or udp
	Dst         netip.Prefix // destination address; /0 selects the family alone
	Port        uint16       // destination port; needs Proto
	Action      Action
	To          uint16 // for Redirect
}

// Rules are the two chains, both on packets that the namespace itself sends.
type Rules struct {
	NAT    []Rule // type nat, hook output, priority -100; policy accept
	Filter []Rule // type filter, hook output, priority 0; policy accept, so the last rule refuses
}

// Config says what Build cannot know.
type Config struct {
	Outbound uint16         // port that outgoing TCP is turned to
	DNS      uint16         // port that DNS is turned to
	Own      []netip.Addr   // addresses of the namespace beside its loopback
	Seeds    []netip.Prefix // families (as /0) of the seed listeners, parallel to SeedPort
	SeedPort []uint16       // nobody but the proxy may connect to these
}

// Build makes the rules. IPv4 and IPv6 are treated alike.
func Build(c Config) Rules {
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, a := range c.Own {
		local = append(local, netip.PrefixFrom(a, a.BitLen()))
	}
	var r Rules
	// The proxy's own sockets first: without this rule its dial of a program that is bound to an address beside
	// loopback would be turned to itself. DNS before loopback, for resolvers on 127.0.0.53.
	r.NAT = append(r.NAT,
		Rule{Marked: true},
		Rule{Proto: udp, Port: 53, Action: Redirect, To: c.DNS},
		Rule{Proto: tcp, Port: 53, Action: Redirect, To: c.DNS})
	for _, p := range local {
		r.NAT = append(r.NAT, Rule{Dst: p})
	}
	r.NAT = append(r.NAT, Rule{Proto: tcp, Action: Redirect, To: c.Outbound})

	// Replies before everything that refuses: the answer to a DNS query is a packet from loopback to the program's
	// address. TCP is all turned by now, what is left of it goes nowhere but here.
	r.Filter = append(r.Filter, Rule{Marked: true}, Rule{Established: true})
	for i, p := range c.SeedPort {
		r.Filter = append(r.Filter, Rule{Proto: tcp, Dst: c.Seeds[i], Port: p, Action: Reset})
	}
	for _, p := range local {
		r.Filter = append(r.Filter, Rule{Dst: p})
	}
	r.Filter = append(r.Filter, Rule{Proto: tcp}, Rule{Action: Reject})
	return r
}

// String answers the rule as nft(8) would list it.
func (r Rule) String() string {
	var b strings.Builder
	if r.Marked {
		fmt.Fprintf(&b, "meta mark %#x ", uint32(Mark))
	}
	if r.Established {
		b.WriteString("ct state established,related ")
	}
	proto := map[uint8]string{tcp: "tcp", udp: "udp"}[r.Proto]
	switch {
	case r.Dst.IsValid() && r.Dst.Bits() == 0:
		b.WriteString(map[bool]string{true: "meta nfproto ipv4 ", false: "meta nfproto ipv6 "}[r.Dst.Addr().Is4()])
	case r.Dst.IsValid():
		b.WriteString(map[bool]string{true: "ip", false: "ip6"}[r.Dst.Addr().Is4()] + " daddr " + r.Dst.String() + " ")
	}
	switch {
	case r.Port != 0:
		fmt.Fprintf(&b, "%s dport %d ", proto, r.Port)
	case r.Proto != 0:
		b.WriteString("meta l4proto " + proto + " ")
	}
	switch r.Action {
	case Accept:
		b.WriteString("accept")
	case Redirect:
		fmt.Fprintf(&b, "redirect to :%d", r.To)
	case Reject:
		b.WriteString("reject")
	case Reset:
		b.WriteString("reject with tcp reset")
	}
	return b.String()
}
