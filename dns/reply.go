package dns

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/tulle-mesh/tulle/model"
)

// reply answers one message from a client, nil for what gets no answer.
func (s *Server) reply(ctx context.Context, packet []byte, tcp bool) []byte {
	var q dns.Msg
	if err := q.Unpack(packet); err != nil {
		return malformed(packet)
	}
	if q.Response {
		return nil
	}
	a := s.answer(ctx, &q, tcp)
	a.Id, a.RecursionAvailable = q.Id, true
	size := dns.MaxMsgSize
	if !tcp {
		size = dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
	}
	if q.IsEdns0() != nil && a.IsEdns0() == nil {
		a.SetEdns0(4096, false)
	}
	a.Truncate(size)
	if b := pack(a); b != nil {
		return b
	}
	return pack(new(dns.Msg).SetRcode(&q, dns.RcodeServerFailure))
}

// malformed answers FORMERR if there is at least a header to answer to.
func malformed(packet []byte) []byte {
	const header, response = 12, 0x80
	if len(packet) < header || packet[2]&response != 0 {
		return nil
	}
	m := dns.Msg{}
	m.Id = uint16(packet[0])<<8 | uint16(packet[1])
	m.Response, m.Rcode = true, dns.RcodeFormatError
	return pack(&m)
}

// answer decides who answers: the mesh, the machine's resolvers, or one and then the other.
func (s *Server) answer(ctx context.Context, q *dns.Msg, tcp bool) *dns.Msg {
	fail := func(rcode int) *dns.Msg { return new(dns.Msg).SetRcode(q, rcode) }
	if q.Opcode != dns.OpcodeQuery {
		return fail(dns.RcodeNotImplemented)
	}
	if len(q.Question) != 1 {
		return fail(dns.RcodeFormatError)
	}
	if q.Question[0].Qclass != dns.ClassINET {
		return fail(dns.RcodeRefused)
	}
	name := strings.ToLower(q.Question[0].Name)
	if s.cfg.Prove != nil {
		if text := s.cfg.Prove(name); text != "" {
			a := new(dns.Msg).SetReply(q)
			a.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{text}}}
			return a
		}
	}
	if o := s.cfg.Outside; o != nil {
		if service, virtual, known := o.Host(strings.TrimSuffix(name, ".")); known && virtual {
			if a := s.mesh(ctx, q, service); a != nil {
				return a
			}
			return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure) // it is told of before its addresses are
		}
	}
	switch service, shape := s.shape(name); shape {
	case shapeLocal:
		return addresses(q, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	case shapeNothing:
		return negative(q, dns.RcodeNameError)
	case shapeFull:
		if a := s.mesh(ctx, q, service); a != nil {
			return a
		}
		return negative(q, dns.RcodeNameError)
	case shapeSingle:
		if a := s.mesh(ctx, q, service); a != nil {
			return a
		}
		return s.forward(ctx, q, tcp)
	case shapeOwn:
		if a := s.mesh(ctx, q, service); a != nil && a.Rcode == dns.RcodeSuccess {
			return a
		}
		return s.forward(ctx, q, tcp)
	case shapePair:
		outside := s.forward(ctx, q, tcp)
		if outside.Rcode != dns.RcodeNameError && outside.Rcode != dns.RcodeServerFailure {
			return outside
		}
		if a := s.mesh(ctx, q, service); a != nil && a.Rcode == dns.RcodeSuccess {
			return a
		}
		return outside
	}
	return s.forward(ctx, q, tcp)
}

// shape is what a name can mean.
type shape uint8

const (
	shapeOther   shape = iota // the machine's resolvers know
	shapeLocal                // localhost
	shapeNothing              // below our domains, but no service can have it
	shapeFull                 // name.namespace.svc.cluster.local: the mesh alone knows
	shapeSingle               // name: the mesh, then the resolvers
	shapeOwn                  // name.<own namespace>: likewise, but no answer of the mesh is no obstacle
	shapePair                 // name.namespace: looks like a public name, so the resolvers first, and the mesh only if they know nothing or cannot be reached
)

// shape tells what a name, in lower case and ending in a dot, can mean.
func (s *Server) shape(name string) (model.ServiceName, shape) {
	if name == "localhost." || strings.HasSuffix(name, ".localhost.") {
		return model.ServiceName{}, shapeLocal
	}
	if rest, ok := strings.CutSuffix(name, "."+Domain); ok {
		if n, ns, two := strings.Cut(rest, "."); two && label(n) && label(ns) {
			return model.ServiceName{Name: n, Namespace: ns}, shapeFull
		}
		return model.ServiceName{}, shapeNothing
	}
	if name == "cluster.local." || strings.HasSuffix(name, ".cluster.local.") || s.reverse(name) {
		return model.ServiceName{}, shapeNothing
	}
	n, ns, two := strings.Cut(strings.TrimSuffix(name, "."), ".")
	switch {
	case !label(n):
	case !two:
		return model.ServiceName{Name: n, Namespace: s.cfg.Namespace}, shapeSingle
	case ns == s.cfg.Namespace:
		return model.ServiceName{Name: n, Namespace: ns}, shapeOwn
	case label(ns):
		return model.ServiceName{Name: n, Namespace: ns}, shapePair
	}
	return model.ServiceName{}, shapeOther
}

// label reports whether l can name a service or a namespace (RFC 1123, as in Kubernetes).
func label(l string) bool {
	if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for i := range len(l) {
		if c := l[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// reverse reports whether name asks for the name of a virtual address: nobody outside knows it.
func (s *Server) reverse(name string) bool {
	addr, ok := reverseAddr(name)
	return ok && slices.ContainsFunc(s.cfg.VIPs, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// reverseAddr reads the address from the name of a reverse lookup (RFC 1035 section 3.5, RFC 3596 section
// 2.5).
func reverseAddr(name string) (netip.Addr, bool) {
	if v4, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		l := strings.Split(v4, ".")
		slices.Reverse(l)
		a, err := netip.ParseAddr(strings.Join(l, "."))
		return a, err == nil && a.Is4()
	}
	v6, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(v6) != 63 {
		return netip.Addr{}, false
	}
	var b strings.Builder
	for i := len(v6) - 1; i >= 0; i -= 2 {
		b.WriteByte(v6[i])
		if n := (63 - i + 1) / 2; n%4 == 0 && i > 0 {
			b.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}

// mesh answers from the mesh: nil if it surely has no such service, SERVFAIL if nobody can tell.
func (s *Server) mesh(ctx context.Context, q *dns.Msg, name model.ServiceName) *dns.Msg {
	v4, v6, known, err := s.cfg.Names.Lookup(ctx, name)
	switch {
	case err != nil:
		s.cfg.Log.Warn("name not answered: is the control plane running?", "name", name.String(), "error", err)
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	case !known:
		return nil
	}
	return addresses(q, v4, v6)
}

// addresses answers A and AAAA, and NODATA for whatever else is asked of a name that exists.
func addresses(q *dns.Msg, v4, v6 netip.Addr) *dns.Msg {
	a := new(dns.Msg).SetReply(q)
	a.Authoritative = true
	asked := q.Question[0]
	if v4.Is4() && (asked.Qtype == dns.TypeA || asked.Qtype == dns.TypeANY) {
		a.Answer = append(a.Answer, &dns.A{Hdr: header(asked.Name, dns.TypeA), A: v4.AsSlice()})
	}
	if v6.Is6() && (asked.Qtype == dns.TypeAAAA || asked.Qtype == dns.TypeANY) {
		a.Answer = append(a.Answer, &dns.AAAA{Hdr: header(asked.Name, dns.TypeAAAA), AAAA: v6.AsSlice()})
	}
	if len(a.Answer) == 0 {
		return negative(q, dns.RcodeSuccess)
	}
	return a
}

// negative answers that there is nothing, with how long that may be remembered (RFC 2308).
func negative(q *dns.Msg, rcode int) *dns.Msg {
	a := new(dns.Msg).SetRcode(q, rcode)
	a.Authoritative = true
	a.Ns = []dns.RR{&dns.SOA{
		Hdr: header("cluster.local.", dns.TypeSOA), Ns: "ns.dns.cluster.local.", Mbox: "hostmaster.cluster.local.",
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: TTL,
	}}
	return a
}

func header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: TTL}
}
