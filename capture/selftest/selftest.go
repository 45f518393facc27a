// Package selftest finds out, again and again while a program runs, whether its traffic still goes through its proxy. From inside the
// program's network namespace, by sockets that are like the program's own, it connects to an address at which nobody but the proxy
// answers, over IPv4 and IPv6, asks for a name, sends what is to be refused, and looks for interfaces by which the program could be
// reached, or reach others, round the proxy. Who answers proves with a secret of the workload's proxies that he is one (Prove). It
// promises that a check is bounded (patience, a handful of packets), and that a slow machine is no alarm: Monitor wants several failures
// in a row. It repairs nothing; the one thing it changes, where it is asked to (Sockets.Close), is that nothing
// passes any more but by loopback. Methods of Sockets are for one goroutine at a time, Prove for any. Start reading at Sockets.Check,
// then Monitor.
package selftest

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

// Bounds of a check.
const (
	patience = 3 * time.Second        // for the proxy to answer
	hurry    = 200 * time.Millisecond // once something has failed
	slice    = 50                     // of waiting, milliseconds
)

// ChallengeSize is how many bytes a challenge has, ProofSize how many the answer to it.
const (
	ChallengeSize = 16
	ProofSize     = 32
)

// SecretSize is the size of the secret of a workload's proxies.
const SecretSize = 32

// NewSecret makes one.
func NewSecret() []byte {
	s := make([]byte, SecretSize)
	rand.Read(s) // never fails
	return s
}

// Prove answers a challenge that came from a place, ProofSize bytes. The place is in it so that nobody can have another's answered.
func Prove(secret, challenge []byte, from netip.AddrPort) []byte {
	return prove(nil, hmac.New(sha256.New, secret), challenge, from)
}

// prove is Prove by an HMAC with the secret, appended to p.
func prove(p []byte, m hash.Hash, challenge []byte, from netip.AddrPort) []byte {
	m.Reset()
	m.Write(challenge)
	var place [64]byte
	m.Write(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()).AppendTo(place[:0]))
	return m.Sum(p)
}

// Domain is where names are asked for: 32 hexadecimal digits, then this. The answer is a text.
const Domain = "capture.tulle."

// ProveName answers the text of a name below Domain, in lower case; "" where it is no challenge.
func ProveName(secret []byte, name string) string {
	text, ok := strings.CutSuffix(name, "."+Domain)
	challenge, err := hex.DecodeString(text)
	if !ok || err != nil || len(challenge) != ChallengeSize {
		return ""
	}
	m := hmac.New(sha256.New, secret)
	m.Write([]byte("name "))
	m.Write(challenge)
	return hex.EncodeToString(m.Sum(nil))
}

// Probe says whether somebody asks for what only the test of capture asks for.
func Probe(wanted netip.AddrPort) bool {
	a := wanted.Addr().Unmap()
	return wanted.Port() == bootstrap.ProbePort && (a == bootstrap.ProbeV4 || a == bootstrap.ProbeV6)
}

// Sockets are those of a namespace that a check needs; -1 is none.
type Sockets struct {
	TCP, UDP     [2]int // IPv4, IPv6
	Links, Rules int    // netlink
	Secret       []byte
}

// Of takes the sockets of a bootstrap; nil where its supervisor knows no test of capture. Descriptors stay the bootstrap's.
func Of(b *bootstrap.Bootstrap) *Sockets {
	s := &Sockets{TCP: [2]int{-1, -1}, UDP: [2]int{-1, -1}, Links: -1, Rules: -1, Secret: b.Probe}
	for i := range 2 {
		if f, ok := b.Find(bootstrap.RoleProbeTCP, i == 1, 0); ok {
			s.TCP[i] = f.FD
		}
		if f, ok := b.Find(bootstrap.RoleProbeUDP, i == 1, 0); ok {
			s.UDP[i] = f.FD
		}
	}
	if f, ok := b.Find(bootstrap.RoleLinks, false, 0); ok {
		s.Links = f.FD
	}
	if f, ok := b.Find(bootstrap.RoleRules, false, 0); ok {
		s.Rules = f.FD
	}
	if s.TCP[0] < 0 || s.Rules < 0 || s.UDP[0] < 0 || s.Links < 0 || len(s.Secret) == 0 {
		return nil
	}
	return s
}

// Check looks once, and answers everything that is not as it should be, nil if all is. It blocks for patience at most.
func (s *Sockets) Check() error {
	c := &check{end: time.Now().Add(patience)}
	var all []error
	if err := s.foreign(); err != nil {
		all = append(all, err)
		c.failed.Store(true)
	}
	errs := make([]error, 4)
	var tasks sync.WaitGroup
	for i := range 2 {
		if s.TCP[i] >= 0 {
			tasks.Go(func() { errs[i] = c.note(s.connect(c, i)) })
		}
		if s.UDP[i] >= 0 {
			tasks.Go(func() { errs[2+i] = c.note(s.datagrams(c, i)) })
		}
	}
	tasks.Wait()
	return errors.Join(append(all, errs...)...)
}

// check is one of them under way.
type check struct {
	end    time.Time
	failed atomic.Bool
}

// errCut: it was not waited for, since something else has failed.
var errCut = errors.New("not finished")

func (c *check) note(err error) error {
	if errors.Is(err, errCut) {
		return nil
	}
	if err != nil {
		c.failed.Store(true)
	}
	return err
}

// await waits until a socket is ready.
func (c *check) await(fd int, events int16) error {
	cut := time.Time{}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, slice)
		now := time.Now()
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case n > 0:
			return nil
		case now.After(c.end):
			return fmt.Errorf("no answer for %s", patience)
		case c.failed.Load() && cut.IsZero():
			cut = now.Add(hurry)
		case !cut.IsZero() && now.After(cut):
			return errCut
		}
	}
}

var (
	families = [2]string{"IPv4", "IPv6"}
	places   = [2]netip.Addr{bootstrap.ProbeV4, bootstrap.ProbeV6}
)

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}
