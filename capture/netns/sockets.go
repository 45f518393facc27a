package netns

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/nft"
)

// backlog of listeners: the kernel cuts it down to net.core.somaxconn.
const backlog = 4096

// Seeds is how many pairs of seed and seed listener there are per address family: two proxies at once cannot mint from
// one, and while one replaces another there are two.
const Seeds = 2

// openSockets makes every socket that the proxy needs inside. They are bound to 127.0.0.1 and ::1, never to the
// wildcard: a UDP answer from there would come from another address than the one that was asked. Only seed
// listeners are bound to it, so that what they accept has no address of its own; the rules keep the program away.
func openSockets(forward []uint16) (all []bootstrap.Socket, err error) {
	add := func(role bootstrap.Role, index int, typ int, at netip.AddrPort) {
		if err != nil {
			return
		}
		var fd int
		if fd, err = openMarked(typ, at, role != bootstrap.RoleSeed); err != nil {
			err = &StageError{StageSockets, fmt.Errorf("%s on %s: %w", role, at, err)}
			return
		}
		all = append(all, bootstrap.Socket{Role: role, V6: at.Addr().Is6(), Index: index, Local: localName(fd), FD: fd})
	}
	hosts := [][2]netip.Addr{{netip.MustParseAddr("127.0.0.1"), netip.IPv4Unspecified()}}
	if hasV6() {
		hosts = append(hosts, [2]netip.Addr{netip.IPv6Loopback(), netip.IPv6Unspecified()})
	}
	for _, h := range hosts {
		at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(h[0], port) }
		add(bootstrap.RoleOutbound, 0, unix.SOCK_STREAM, at(bootstrap.OutboundPort))
		add(bootstrap.RoleDNSTCP, 0, unix.SOCK_STREAM, at(bootstrap.DNSPort))
		add(bootstrap.RoleDNSUDP, 0, unix.SOCK_DGRAM, at(bootstrap.DNSPort))
		for i := range Seeds {
			add(bootstrap.RoleSeed, i, unix.SOCK_STREAM, netip.AddrPortFrom(h[1], 0))
			add(bootstrap.RoleSeedListener, i, unix.SOCK_STREAM, netip.AddrPortFrom(h[1], 0))
		}
		for i, port := range forward {
			add(bootstrap.RoleForward, i, unix.SOCK_STREAM, at(port))
		}
	}
	if err == nil {
		err = openProbes(&all, len(hosts) > 1)
	}
	return all, err
}

// openProbes makes what the test of capture needs: sockets as the program's own, and netlink.
func openProbes(all *[]bootstrap.Socket, v6 bool) error {
	add := func(role bootstrap.Role, index int, v6 bool, fd int, err error) error {
		if err != nil {
			return &StageError{StageSockets, fmt.Errorf("%s: %w", role, err)}
		}
		*all = append(*all, bootstrap.Socket{Role: role, V6: v6, Index: index, FD: fd})
		return nil
	}
	for _, six := range []bool{false, true} {
		if six && !v6 {
			break
		}
		fd, err := open(unix.SOCK_STREAM, six, true)
		if err := add(bootstrap.RoleProbeTCP, 0, six, fd, err); err != nil {
			return err
		}
		fd, err = open(unix.SOCK_DGRAM, six, true)
		if err := add(bootstrap.RoleProbeUDP, 0, six, fd, err); err != nil {
			return err
		}
	}
	for role, protocol := range map[bootstrap.Role]int{bootstrap.RoleLinks: unix.NETLINK_ROUTE, bootstrap.RoleRules: unix.NETLINK_NETFILTER} {
		fd, err := openNetlink(protocol)
		if err := add(role, 0, false, fd, err); err != nil {
			return err
		}
	}
	// Without these a change is found out later.
	for i, e := range []struct {
		protocol int
		groups   []int
	}{
		{unix.NETLINK_ROUTE, []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE}},
		{unix.NETLINK_NETFILTER, []int{unix.NFNLGRP_NFTABLES}},
	} {
		if fd, err := openNetlink(e.protocol, e.groups...); err == nil {
			_ = add(bootstrap.RoleEvents, i, false, fd, nil)
		}
	}
	return nil
}

// openNetlink makes a netlink socket that hears of groups.
func openNetlink(protocol int, groups ...int) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, err
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, g := range groups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openMarked makes one socket with nft.Mark, non-blocking and close-on-exec; bound and listening if it is to be.
func openMarked(typ int, at netip.AddrPort, bound bool) (int, error) {
	fd, err := open(typ, at.Addr().Is6(), true)
	if err != nil {
		return -1, err
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, nft.Mark); err == nil && bound {
		err = bindListen(fd, typ, at)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Listen makes a TCP listener on an address of this machine, for the sockets that a proxy has outside. Non-blocking,
// close-on-exec; on [::] it takes IPv4 as well.
func Listen(at netip.AddrPort) (fd int, local string, err error) {
	fd, err = open(unix.SOCK_STREAM, at.Addr().Is6(), !at.Addr().IsUnspecified())
	if err != nil {
		return -1, "", err
	}
	if err := bindListen(fd, unix.SOCK_STREAM, at); err != nil {
		unix.Close(fd)
		return -1, "", err
	}
	return fd, localName(fd), nil
}

func open(typ int, v6, only6 bool) (int, error) {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if v6 {
		on := 0
		if only6 {
			on = 1
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, on); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

func bindListen(fd, typ int, at netip.AddrPort) error {
	if typ == unix.SOCK_STREAM {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, sockaddr(at)); err != nil {
		return err
	}
	if typ == unix.SOCK_STREAM {
		return unix.Listen(fd, backlog)
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func localName(fd int) string {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return ""
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	}
	return ""
}
