//go:build e2e

package security

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// insideMain is a program in the mesh that tries every way out it knows. It prints what worked, and at the end that it is done. Once
// more from a user namespace of its own, where it has every capability.
func insideMain(again bool) error {
	say := func(name string, err error) {
		if err == nil {
			fmt.Printf("%s worked (own user namespace: %v)\n", name, again)
		}
	}
	for name, s := range map[string][3]int{
		"raw IPv4": {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW}, "raw TCP": {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP}, "raw IPv6": {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW},
		"packets": {unix.AF_PACKET, unix.SOCK_RAW, 0}, "packets without a head": {unix.AF_PACKET, unix.SOCK_DGRAM, 0},
	} {
		fd, err := unix.Socket(s[0], s[1], s[2])
		if err == nil {
			unix.Close(fd)
		}
		say("a socket for "+name, err)
	}
	to4, to6 := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 1}}, &unix.SockaddrInet6{Port: 9, Addr: [16]byte{0x20, 1, 0x0d, 0xb8, 15: 1}}
	for name, s := range map[string][2]int{"UDP": {unix.SOCK_DGRAM, unix.IPPROTO_UDP}, "UDP-Lite": {unix.SOCK_DGRAM, 136}, "SCTP": {unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP}, "DCCP": {6, 33}, "ICMP": {unix.SOCK_DGRAM, unix.IPPROTO_ICMP}, "MPTCP": {unix.SOCK_STREAM, 262}} {
		for family, to := range map[int]unix.Sockaddr{unix.AF_INET: to4, unix.AF_INET6: to6} {
			proto := s[1]
			if name == "ICMP" && family == unix.AF_INET6 {
				proto = unix.IPPROTO_ICMPV6
			}
			say(name, send(family, s[0], proto, to))
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	say("the proxy's mark", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0x74756c65))
	say("a transparent socket", unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1))
	if c, err := nftables.New(); err == nil {
		c.DelTable(&nftables.Table{Name: "tulle", Family: nftables.TableFamilyINet})
		say("deleting the rules", c.Flush())
		c.FlushRuleset()
		say("flushing all rules", c.Flush())
	}
	for _, at := range []string{"127.0.0.1:15001", "[::1]:15001", "169.254.7.1:15001", "127.0.0.1:15000", "127.0.0.1:15020", "127.0.0.1:15012", "127.0.0.1:7070", "[::1]:15000", "192.0.2.1:15001", "198.18.0.1:15001"} {
		say("talking to "+at, answers(at))
	}
	if again {
		return nil
	}
	self := exec.Command("/proc/self/exe", "inside", "again")
	self.Stdout = os.Stdout
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	if err := self.Run(); err != nil && !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ENOSPC) {
		fmt.Println("in a user namespace:", err)
	}
	fmt.Println("done")
	return nil
}

// send sends a few bytes; nil: nothing was refused.
func send(family, typ, proto int, to unix.Sockaddr) error {
	fd, err := unix.Socket(family, typ|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if typ == unix.SOCK_DGRAM {
		return unix.Sendto(fd, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, 0, to)
	}
	if err := unix.Connect(fd, to); !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 500)
	if _, err := unix.Write(fd, []byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		return err
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 500)
	if n, err := unix.Read(fd, make([]byte, 100)); n <= 0 {
		return fmt.Errorf("nothing came back: %w", errors.Join(err, unix.ECONNRESET))
	}
	return nil
}

func answers(at string) error {
	c, err := net.DialTimeout("tcp", at, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprint(c, "GET /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	p := make([]byte, 1000)
	n, err := c.Read(p)
	if n > 0 {
		if strings.Contains(string(p[:n]), "tulle-reason") {
			return errors.New("refused by the proxy")
		}
		return nil
	}
	return err
}

// TestInside: from inside of a workload there is no way around its proxy, nor to its own ports.
func TestInside(t *testing.T) {
	m := newMesh(t, "--access-log")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(m.tulle, "run", "--data-dir", m.data, "--service", "shell", "--", self, "inside")
	c.Env = append(os.Environ(), "XDG_STATE_HOME="+m.dir)
	out, err := c.Output()
	if err != nil || string(out) != "done\n" {
		t.Errorf("%v: %s", err, out)
	}
	if err := m.canary(); err != nil {
		t.Error(err)
	}
	t.Run("egress", func(t *testing.T) { egress(t, m) })
	t.Run("secrets", func(t *testing.T) { secrets(t, m) })
}
