package selftest

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/seed"
)

// Ports that datagrams are sent to.
const (
	namePort    = 53
	refusedPort = 9 // discard (RFC 863); every other would do
)

// connect finds out whether a TCP connection of one family reaches the proxy.
func (s *Sockets) connect(c *check, family int) (err error) {
	fd := s.TCP[family]
	fail := func(why string, err error) error {
		if errors.Is(err, errCut) {
			return err
		}
		return fmt.Errorf("a TCP connection over %s %s: %w", families[family], why, err)
	}
	if err := seed.Disconnect(fd); err != nil {
		return fail("cannot be tried", err)
	}
	defer func() { _ = seed.Disconnect(fd) }() // the next check does it again
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(places[family], probePort))); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fail("is not turned to the proxy", err)
	}
	if err := c.await(fd, unix.POLLOUT); err != nil {
		return fail("is not turned to the proxy", err)
	}
	if e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
		return fail("is not turned to the proxy", errors.Join(err, unix.Errno(e)))
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return fail("cannot be tried", err)
	}
	challenge := make([]byte, ChallengeSize)
	rand.Read(challenge)
	if _, err := unix.Write(fd, challenge); err != nil {
		return fail("is broken off", err)
	}
	var proof []byte
	for p := make([]byte, ProofSize); len(proof) < ProofSize; {
		if err := c.await(fd, unix.POLLIN); err != nil {
			return fail("gets no answer of the proxy", err)
		}
		n, err := unix.Read(fd, p[:ProofSize-len(proof)])
		if err != nil {
			return fail("is broken off", err)
		}
		if n == 0 {
			return fail("reaches somebody else", errors.New("it was ended"))
		}
		proof = append(proof, p[:n]...)
	}
	if !proven(s.Secret, challenge, addrPort(local), proof) {
		return fail("reaches somebody else", errors.New("the answer is not the proxy's"))
	}
	return nil
}

// proven reports whether a proof is the proxy's. Where another connection of the program has the same source port, the kernel gives one that
// is turned to the proxy another port on its way (both lead to the same address then), so the proxy may have seen any port of ours. That is
// rare, but for programs that open and close hundreds of connections per second; it costs some tens of milliseconds to find out.
func proven(secret, challenge []byte, from netip.AddrPort, proof []byte) bool {
	m := hmac.New(sha256.New, secret)
	fits := func(port uint16) bool {
		var p [ProofSize]byte
		return hmac.Equal(proof, prove(p[:0], m, challenge, netip.AddrPortFrom(from.Addr(), port)))
	}
	if fits(from.Port()) {
		return true
	}
	for port := range 1 << 16 {
		if fits(uint16(port)) {
			return true
		}
	}
	return false
}

// datagrams finds out whether questions for names reach the proxy, and whether other datagrams are refused.
func (s *Sockets) datagrams(c *check, family int) error {
	fd := s.UDP[family]
	switch err := unix.Sendto(fd, []byte{0}, unix.MSG_NOSIGNAL, sockaddr(netip.AddrPortFrom(places[family], refusedPort))); {
	case err == nil:
		return fmt.Errorf("a datagram over %s is not refused", families[family])
	case !errors.Is(err, unix.EPERM):
		return fmt.Errorf("a datagram over %s is not refused by the rules: %w", families[family], err)
	}
	fail := func(why string, err error) error {
		if errors.Is(err, errCut) {
			return err
		}
		return fmt.Errorf("a question for a name over %s %s: %w", families[family], why, err)
	}
	challenge := make([]byte, ChallengeSize)
	rand.Read(challenge)
	name := hex.EncodeToString(challenge) + "." + Domain
	question := ask(binary.BigEndian.Uint16(challenge), name)
	if err := unix.Sendto(fd, question, unix.MSG_NOSIGNAL, sockaddr(netip.AddrPortFrom(places[family], namePort))); err != nil {
		return fail("is not turned to the proxy", err)
	}
	want := []byte(ProveName(s.Secret, name))
	for p := make([]byte, 1024); ; {
		if err := c.await(fd, unix.POLLIN); err != nil {
			return fail("gets no answer of the proxy", err)
		}
		n, _, err := unix.Recvfrom(fd, p, 0)
		switch {
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		case err != nil:
			return fail("gets no answer of the proxy", err)
		case n > 2 && bytes.Equal(p[:2], question[:2]): // else it is an answer to an earlier one
			if bytes.Contains(p[:n], want) {
				return nil
			}
			return fail("is answered by somebody else", errors.New("the answer is not the proxy's"))
		}
	}
}

// ask writes a question for a text (RFC 1035 section 4.1). Labels of name are short.
func ask(id uint16, name string) []byte {
	const recursion, text, internet = 0x0100, 16, 1
	m := binary.BigEndian.AppendUint16(nil, id)
	for _, n := range [...]uint16{recursion, 1, 0, 0, 0} {
		m = binary.BigEndian.AppendUint16(m, n)
	}
	for label := range bytes.SplitSeq([]byte(name), []byte{'.'}) {
		m = append(append(m, byte(len(label))), label...)
	}
	return append(m, 0, text, 0, internet)
}
