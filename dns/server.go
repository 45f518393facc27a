// Package dns is the name server that a workload sees: names of services get their virtual addresses, all
// other names go to the machine's own resolvers. The control plane is asked only about names that have the
// shape of the mesh's. Listeners are given, so that they can live in another network namespace. It caches
// nothing: who implements Names keeps what is known. Everything is safe for concurrent use. Start reading at
// Config, then Server.reply.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/tulle-mesh/tulle/model"
)

// TTL of every answer about the mesh, in seconds.
const TTL = 5

// Domain is the suffix of the mesh's full names, "reviews.default.svc.cluster.local.".
const Domain = "svc.cluster.local."

// Names answers for the mesh.
type Names interface {
	// Lookup answers the addresses of a service; one of them may be the zero Addr. known is false if there
	// surely is no such service, err is not nil if nobody can tell now.
	Lookup(ctx context.Context, name model.ServiceName) (v4, v6 netip.Addr, known bool, err error)
}

// Outside knows the hosts of ExternalServices.
type Outside interface {
	// Host answers the service that a name, in lower case and without a dot at its end, belongs to; virtual: the answer is its
	// virtual addresses. known is false for every other name.
	Host(name string) (service model.ServiceName, virtual, known bool)
	// Learned takes what the program is told of a name that the machine's resolvers know.
	Learned(name string, addrs []netip.Addr)
}

// Config of a Server. Names and Namespace are required.
type Config struct {
	Names   Names
	Outside Outside // what is outside of the mesh; nil: nobody asks
	// Prove answers the text of a name (in lower case, with a dot at its end) that only the test of capture asks for, "" for every
	// other name; nil: there is no such test.
	Prove     func(name string) string
	Namespace string           // of the workload: where single labels are looked up
	Packets   []net.PacketConn // UDP; closed by Close
	Listeners []net.Listener   // TCP; closed by Close
	Resolvers Resolvers        // of the machine; see ReadResolvers
	VIPs      []netip.Prefix   // reverse lookups in them never leave; default 198.18.0.0/15 and fd74:756c:6c65::/64
	Timeout   time.Duration    // of one question to one resolver; default 2 s
	Queries   int              // answered at the same time at most, the rest gets SERVFAIL; default 256
	Streams   int              // TCP connections at the same time at most; default 64
	Log       *slog.Logger     // nil: silent
}

// Server answers until Close.
type Server struct {
	cfg     Config
	ctx     context.Context
	cancel  context.CancelFunc
	queries chan struct{}
	streams chan struct{}
	ended   sync.WaitGroup
	retired atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// Start answers on the sockets of cfg in the background.
func Start(cfg Config) *Server {
	s := newServer(cfg)
	for _, p := range s.cfg.Packets {
		s.ended.Go(func() { s.packets(p) })
	}
	for _, l := range s.cfg.Listeners {
		s.ended.Go(func() { s.accepts(l) })
	}
	return s
}

func newServer(cfg Config) *Server {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.Queries <= 0 {
		cfg.Queries = 256
	}
	if cfg.Streams <= 0 {
		cfg.Streams = 64
	}
	if cfg.VIPs == nil {
		cfg.VIPs = []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fd74:756c:6c65::/64")}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, conns: map[net.Conn]struct{}{}}
	s.queries, s.streams = make(chan struct{}, cfg.Queries), make(chan struct{}, cfg.Streams)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Retire takes no more questions: another server answers on the same sockets. What has been asked is answered still;
// TCP connections go on until their clients end them or are silent. Close ends that.
func (s *Server) Retire() {
	s.retired.Store(true)
	for _, p := range s.cfg.Packets {
		_ = p.SetReadDeadline(time.Unix(1, 0)) // a socket without deadlines goes on reading until Close
	}
	for _, l := range s.cfg.Listeners {
		l.Close()
	}
}

// Close closes the sockets, ends what is being asked and waits.
func (s *Server) Close() {
	s.cancel()
	for _, p := range s.cfg.Packets {
		p.Close()
	}
	for _, l := range s.cfg.Listeners {
		l.Close()
	}
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.ended.Wait()
}

// packets answers UDP questions.
func (s *Server) packets(p net.PacketConn) {
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, from, err := p.ReadFrom(buf)
		if err != nil {
			if s.over(err) {
				return
			}
			continue // an ICMP error of an earlier answer
		}
		question := append([]byte(nil), buf[:n]...)
		answer := func(a []byte) {
			if a != nil {
				p.WriteTo(a, from)
			}
		}
		select {
		case s.queries <- struct{}{}:
			s.ended.Go(func() {
				a := s.reply(s.ctx, question, false)
				<-s.queries // first, so that there is room for who asks again when it has heard
				answer(a)
			})
		default:
			answer(busy(question))
		}
	}
}

// over reports whether a socket is done with, and holds up a loop that would spin.
func (s *Server) over(err error) bool {
	if errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil || s.retired.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	s.cfg.Log.Debug("dns socket", "error", err)
	select {
	case <-s.ctx.Done():
		return true
	case <-time.After(5 * time.Millisecond):
		return false
	}
}

func (s *Server) accepts(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if s.over(err) {
				return
			}
			continue
		}
		select {
		case s.streams <- struct{}{}:
			s.ended.Go(func() {
				defer func() { <-s.streams }()
				s.stream(c)
			})
		default:
			c.Close()
		}
	}
}

// streamIdle is how long a TCP connection may be silent (RFC 7766 section 6.2.3 wants seconds).
const streamIdle = 10 * time.Second

// stream answers the questions of one TCP connection, one after the other.
func (s *Server) stream(c net.Conn) {
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		c.Close()
	}()
	for s.ctx.Err() == nil {
		c.SetDeadline(time.Now().Add(streamIdle))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		a := s.reply(s.ctx, question, true)
		if a == nil {
			return
		}
		c.SetDeadline(time.Now().Add(streamIdle))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...)); err != nil {
			return
		}
	}
}

// busy answers SERVFAIL to a question that there is no room for.
func busy(packet []byte) []byte {
	var q dns.Msg
	if q.Unpack(packet) != nil || q.Response || len(q.Question) != 1 {
		return nil
	}
	return pack(new(dns.Msg).SetRcode(&q, dns.RcodeServerFailure))
}

func pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}
