package netns_test

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/netns"
	"github.com/tulle-mesh/tulle/capture/origdst"
	"github.com/tulle-mesh/tulle/capture/selftest"
)

// proxyFor answers the test of capture as a proxy with a secret does.
func (l *lab) proxyFor(secret []byte) {
	for _, v6 := range []bool{false, true} {
		f := os.NewFile(uintptr(l.dup(bootstrap.RoleOutbound, v6)), "")
		ln, err := net.FileListener(f)
		check(l.t, err)
		f.Close()
		l.t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				answerProbe(c.(*net.TCPConn), v6, secret)
			}
		}()
		f = os.NewFile(uintptr(l.dup(bootstrap.RoleDNSUDP, v6)), "")
		pc, err := net.FilePacketConn(f)
		check(l.t, err)
		f.Close()
		l.t.Cleanup(func() { pc.Close() })
		go func() {
			p := make([]byte, 512)
			for {
				n, from, err := pc.ReadFrom(p)
				if err != nil {
					return
				}
				var name strings.Builder
				for at := 12; at < n && p[at] > 0; at += 1 + int(p[at]) {
					name.Write(p[at+1 : at+1+int(p[at])])
					name.WriteByte('.')
				}
				pc.WriteTo(append(p[:2:2], selftest.ProveName(secret, name.String())...), from)
			}
		}()
	}
}

func answerProbe(c *net.TCPConn, v6 bool, secret []byte) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	ours := false
	raw.Control(func(fd uintptr) {
		dst, err := origdst.Get(int(fd), v6)
		ours = err == nil && selftest.Probe(dst)
	})
	if !ours {
		return
	}
	p := make([]byte, selftest.ChallengeSize)
	if _, err := io.ReadFull(c, p); err == nil {
		c.Write(selftest.Prove(secret, p, c.RemoteAddr().(*net.TCPAddr).AddrPort()))
	}
}

// netlink sends a message by a socket of the namespace.
func (l *lab) netlink(role bootstrap.Role, index int, messages ...[]byte) {
	l.t.Helper()
	b := bootstrap.Bootstrap{Sockets: l.socks}
	s, ok := b.Find(role, false, index)
	if !ok {
		l.t.Fatalf("no %s socket", role)
	}
	var all []byte
	for _, m := range messages {
		all = append(all, m...)
	}
	check(l.t, unix.Sendto(s.FD, all, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
}

func netlinkMessage(kind, flags uint16, body []byte) []byte {
	m := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(m, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|flags)
	return append(m, body...)
}

func attribute(kind uint16, value []byte) []byte {
	a := make([]byte, 4)
	binary.NativeEndian.PutUint16(a, uint16(4+len(value)))
	binary.NativeEndian.PutUint16(a[2:], kind)
	a = append(a, value...)
	for len(a)%4 != 0 {
		a = append(a, 0)
	}
	return a
}

// flush deletes the rules, as nft(8) would in the namespace.
func (l *lab) flush() {
	batch := func(kind uint16) []byte {
		return netlinkMessage(kind, 0, []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES})
	}
	l.netlink(bootstrap.RoleEvents, 1, batch(unix.NFNL_MSG_BATCH_BEGIN),
		netlinkMessage(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE, 0, []byte{1 /* inet */, 0, 0, 0}), // every table of the family
		batch(unix.NFNL_MSG_BATCH_END))
}

// unroute deletes the route by which every address is local.
func (l *lab) unroute() {
	m := make([]byte, unix.SizeofRtMsg)
	m[0], m[4], m[7] = unix.AF_INET, unix.RT_TABLE_LOCAL, unix.RTN_LOCAL
	m[6] = unix.RT_SCOPE_NOWHERE // any
	l.netlink(bootstrap.RoleLinks, 0, netlinkMessage(unix.RTM_DELROUTE, 0, m))
}

// wire makes a pair of interfaces that are up.
func (l *lab) wire() {
	info := attribute(unix.IFLA_LINKINFO, attribute(1 /* IFLA_INFO_KIND */, []byte("veth")))
	name := attribute(unix.IFLA_IFNAME, []byte("way0\x00"))
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP)
	l.netlink(bootstrap.RoleLinks, 0, netlinkMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, append(append(body, name...), info...)))
}

// tested begins a lab with a proxy, in which the test of capture finds nothing.
func tested(t *testing.T) (*lab, *selftest.Sockets, *bootstrap.Bootstrap) {
	t.Helper()
	l := begin(t, netns.Config{}).release()
	b := &bootstrap.Bootstrap{Sockets: l.socks, Probe: selftest.NewSecret()}
	l.proxyFor(b.Probe)
	s := selftest.Of(b)
	if s == nil {
		t.Fatal("the sockets of the test are missing")
	}
	for range 3 { // the same sockets again and again
		check(t, s.Check())
	}
	return l, s, b
}

func TestLabFindsWhatIsBroken(t *testing.T) {
	for name, c := range map[string]struct {
		does func(*lab)
		want []string
	}{
		"the rules are gone":      {(*lab).flush, []string{"over IPv4 is not", "over IPv6 is not"}},
		"a route is gone":         {(*lab).unroute, []string{"IPv4", "unreachable"}},
		"there is a way round it": {(*lab).wire, []string{"interface way0"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, s, b := tested(t)
			changed := make(chan struct{}, 1000)
			stop := selftest.Events(b, func() {
				select {
				case changed <- struct{}{}:
				default:
				}
			})
			defer stop()
			c.does(l)
			select {
			case <-changed:
			case <-time.After(patience):
				t.Error("nobody has said that something has changed")
			}
			err := s.Check()
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, without %q", err, want)
				}
			}
		})
	}
}

// TestLabCloses: behind the barrier everything goes on that goes through the proxy; it can be put up and taken away again and again.
func TestLabCloses(t *testing.T) {
	l, s, _ := tested(t)
	for range 2 {
		check(t, s.Close())
		check(t, s.Close())
		check(t, s.Check())
		check(t, s.Open())
		check(t, s.Open())
		check(t, s.Check())
	}
	l.flush()
	check(t, s.Close())
	if err := s.Check(); err == nil {
		t.Error("the barrier hides that the rules are gone")
	}
}

// TestLabKnowsTheProxy: whoever has not the secret is not taken for the proxy.
func TestLabKnowsTheProxy(t *testing.T) {
	_, s, _ := tested(t)
	other := *s
	other.Secret = selftest.NewSecret()
	if err := other.Check(); err == nil || strings.Count(err.Error(), "somebody else") < 1 {
		t.Errorf("another proxy's answers are taken: %v", err)
	}
}
