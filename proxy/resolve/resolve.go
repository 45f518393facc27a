// Package resolve answers the addresses of a host name together with how long they may be kept, which the standard
// library's resolver does not tell (a cluster's respect_dns_ttl). It asks the name servers of resolv.conf, in their
// order, over UDP, and over TCP what does not fit; the hosts file comes first.
//
// It promises that an answer is to the question that was asked, under an identifier that nobody could guess, and that
// it returns within its bounds of time. It keeps nothing: who asks decides when to ask again. It never validates
// signatures (DNSSEC). A Resolver is safe for concurrent use. Start reading at Ask.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Config of a Resolver; everything has a default.
type Config struct {
	// Conf is the file that names servers and the domains that short names are looked for in; it is read for every
	// question. Default /etc/resolv.conf.
	Conf string
	// Servers are asked instead of those that Conf names.
	Servers []netip.AddrPort
	// Timeout of one question to one server, UDP and TCP apart; default 2 s.
	Timeout time.Duration
}

// Bounds.
const (
	maxServers = 3  // that are asked, as in the C library
	maxNames   = 7  // that a short name may stand for: six domains and itself
	maxChain   = 16 // aliases (CNAME) on the way to an address
	maxAnswers = 256
)

// Resolver asks.
type Resolver struct{ cfg Config }

// New makes a Resolver.
func New(cfg Config) *Resolver {
	if cfg.Conf == "" {
		cfg.Conf = "/etc/resolv.conf"
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Second
	}
	return &Resolver{cfg}
}

// Answer is what a name means. TTL is 0 where nobody has said how long that is so: the hosts file, an address.
type Answer struct {
	Addresses []netip.Addr
	TTL       time.Duration // the shortest of all records that were used
}

var errNone = errors.New("no addresses")

// Ask answers the addresses of a name of the families that are wanted. No address is an error.
func (r *Resolver) Ask(ctx context.Context, name string, v4, v6 bool) (Answer, error) {
	if a, ok := inHosts(ctx, name); ok {
		return Answer{Addresses: a}, nil
	}
	conf, servers, err := r.servers()
	if err != nil {
		return Answer{}, err
	}
	last := errNone
	names := conf.NameList(name)
	for _, full := range names[:min(len(names), maxNames)] {
		a, err := r.both(ctx, servers, full, v4, v6)
		if len(a.Addresses) > 0 {
			return a, nil
		}
		if err != nil {
			last = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return Answer{}, fmt.Errorf("%s: %w", name, last)
}

// servers answers how names are looked up, and where.
func (r *Resolver) servers() (*dns.ClientConfig, []netip.AddrPort, error) {
	conf, err := dns.ClientConfigFromFile(r.cfg.Conf)
	switch {
	case err != nil && len(r.cfg.Servers) == 0:
		return nil, nil, err
	case err != nil:
		conf = &dns.ClientConfig{Ndots: 1}
	}
	servers := r.cfg.Servers
	if servers == nil {
		for _, s := range conf.Servers {
			if a, err := netip.ParseAddr(s); err == nil {
				servers = append(servers, netip.AddrPortFrom(a, 53))
			}
		}
	}
	if len(servers) == 0 { // as the C library has it
		servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return conf, servers[:min(len(servers), maxServers)], nil
}

// inHosts answers what the hosts file says, or what an address that stands for itself is. The standard library reads the
// file; it is given no way to any server.
func inHosts(ctx context.Context, name string) ([]netip.Addr, bool) {
	files := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errNone }}
	a, err := files.LookupNetIP(ctx, "ip", name)
	return a, err == nil && len(a) > 0
}

// both asks for the families that are wanted at the same time.
func (r *Resolver) both(ctx context.Context, servers []netip.AddrPort, full string, v4, v6 bool) (Answer, error) {
	var got [2]Answer
	var errs [2]error
	var all sync.WaitGroup
	for i, wanted := range []bool{v4, v6} {
		if wanted {
			all.Go(func() { got[i], errs[i] = r.one(ctx, servers, full, [...]uint16{dns.TypeA, dns.TypeAAAA}[i]) })
		}
	}
	all.Wait()
	out := got[0]
	if more := got[1]; len(more.Addresses) > 0 {
		if len(out.Addresses) == 0 || more.TTL < out.TTL {
			out.TTL = more.TTL
		}
		out.Addresses = append(out.Addresses, more.Addresses...)
	}
	return out, errors.Join(errs[0], errs[1])
}

// one asks for one family, server after server until one knows.
func (r *Resolver) one(ctx context.Context, servers []netip.AddrPort, full string, kind uint16) (a Answer, err error) {
	for _, s := range servers {
		var m *dns.Msg
		if m, err = r.exchange(ctx, s, full, kind); err != nil {
			continue
		}
		switch m.Rcode {
		case dns.RcodeSuccess, dns.RcodeNameError:
			return addresses(m, full, kind), nil
		}
		err = fmt.Errorf("%s says %s", s, dns.RcodeToString[m.Rcode])
	}
	return Answer{}, err
}

func (r *Resolver) exchange(ctx context.Context, s netip.AddrPort, full string, kind uint16) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(full, kind)
	for _, network := range []string{"udp", "tcp"} {
		client := dns.Client{Net: network, Timeout: r.cfg.Timeout}
		within, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
		m, _, err := client.ExchangeContext(within, q, s.String())
		cancel()
		switch {
		case err != nil && (m == nil || !m.Truncated):
			return nil, err
		case m.Truncated && network == "udp":
			continue
		case !m.Response || len(m.Question) != 1 || !strings.EqualFold(m.Question[0].Name, full) || m.Question[0].Qtype != kind:
			return nil, fmt.Errorf("%s answers another question", s)
		}
		return m, nil
	}
	return nil, fmt.Errorf("%s: the answer is too long", s)
}

// addresses reads an answer: the addresses of the name, or of what it is an alias of, and the shortest time that any
// record on the way may be kept.
func addresses(m *dns.Msg, full string, kind uint16) (out Answer) {
	name, ttl := full, ^uint32(0)
	for range maxChain {
		next := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, name) {
				continue
			}
			switch v := rr.(type) {
			case *dns.A:
				if a, ok := netip.AddrFromSlice(v.A.To4()); ok && kind == dns.TypeA && len(out.Addresses) < maxAnswers {
					out.Addresses, ttl = append(out.Addresses, a), min(ttl, h.Ttl)
				}
			case *dns.AAAA:
				if a, ok := netip.AddrFromSlice(v.AAAA.To16()); ok && !a.Is4In6() && kind == dns.TypeAAAA && len(out.Addresses) < maxAnswers {
					out.Addresses, ttl = append(out.Addresses, a), min(ttl, h.Ttl)
				}
			case *dns.CNAME:
				next, ttl = v.Target, min(ttl, h.Ttl)
			}
		}
		if len(out.Addresses) > 0 {
			out.TTL = time.Duration(ttl) * time.Second
			return out
		}
		if next == "" {
			return Answer{}
		}
		name = next
	}
	return Answer{}
}
