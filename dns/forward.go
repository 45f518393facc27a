package dns

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"

	"github.com/miekg/dns"
)

// Resolvers are the machine's own.
type Resolvers []netip.AddrPort

// maxResolvers is how many are asked, like the C library's MAXNS.
const maxResolvers = 3

// ReadResolvers reads the name servers of a resolv.conf file. A file that names none means 127.0.0.1, as for
// the C library.
func ReadResolvers(path string) (Resolvers, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseResolvers(string(b)), nil
}

// ParseResolvers reads the content of a resolv.conf file; lines that say nothing about name servers, or that
// nobody can understand, are passed over.
func ParseResolvers(conf string) Resolvers {
	var r Resolvers
	for line := range strings.Lines(conf) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(r) == maxResolvers {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			r = append(r, netip.AddrPortFrom(a.Unmap(), 53))
		} else if a, err := netip.ParseAddrPort(f[1]); err == nil { // of tulle run --resolver
			r = append(r, a)
		}
	}
	if len(r) == 0 {
		r = Resolvers{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return r
}

var errQuestion = errors.New("the answer is to another question")

// forward asks the machine's resolvers, one after the other, and gives back what the first one says.
func (s *Server) forward(ctx context.Context, q *dns.Msg, tcp bool) *dns.Msg {
	var last error
	var refused *dns.Msg
	for _, r := range s.cfg.Resolvers {
		a, err := s.ask(ctx, q, r, tcp)
		if err != nil {
			last = err
			continue
		}
		if a.Rcode == dns.RcodeServerFailure || a.Rcode == dns.RcodeRefused {
			refused = a // perhaps another one knows
			continue
		}
		s.learn(q, a)
		return a
	}
	if refused != nil {
		return refused
	}
	s.cfg.Log.Debug("no resolver of the machine answers", "name", q.Question[0].Name, "error", last)
	return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
}

// learn tells which addresses the program is told that a name has.
func (s *Server) learn(q, a *dns.Msg) {
	if s.cfg.Outside == nil {
		return
	}
	var addrs []netip.Addr
	for _, rr := range a.Answer {
		switch v := rr.(type) {
		case *dns.A:
			if ip, ok := netip.AddrFromSlice(v.A); ok {
				addrs = append(addrs, ip.Unmap())
			}
		case *dns.AAAA:
			if ip, ok := netip.AddrFromSlice(v.AAAA); ok {
				addrs = append(addrs, ip.Unmap())
			}
		}
	}
	if len(addrs) > 0 {
		s.cfg.Outside.Learned(strings.ToLower(strings.TrimSuffix(q.Question[0].Name, ".")), addrs)
	}
}

// ask asks one resolver: over UDP, and over TCP if the answer did not fit or the client uses TCP itself.
func (s *Server) ask(ctx context.Context, q *dns.Msg, r netip.AddrPort, tcp bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	out := q.Copy()
	out.Id = dns.Id()
	client := dns.Client{Net: "udp", Timeout: s.cfg.Timeout, UDPSize: 4096}
	if tcp {
		client.Net = "tcp"
	}
	a, _, err := client.ExchangeContext(ctx, out, r.String())
	if err == nil && a.Truncated && !tcp {
		client.Net = "tcp"
		if whole, _, err := client.ExchangeContext(ctx, out, r.String()); err == nil {
			a = whole
		}
	}
	if err != nil {
		return nil, err
	}
	if len(a.Question) != 1 || !strings.EqualFold(a.Question[0].Name, q.Question[0].Name) || a.Question[0].Qtype != q.Question[0].Qtype {
		return nil, errQuestion
	}
	a.Question = q.Question
	return a, nil
}
