// Package origdst answers where a connection wanted to go before nftables turned it to one of our sockets.
package origdst

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const soOriginalDst = 80 // SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST

// Get answers the destination that the connection fd was made to. v6 says that the socket is AF_INET6; on such a
// socket an IPv4 destination is asked for as well and answered as IPv4. Connections that were not turned: ENOENT
// (or their own address, where connection tracking is on).
func Get(fd int, v6 bool) (netip.AddrPort, error) {
	if !v6 {
		return get4(fd)
	}
	var raw unix.RawSockaddrInet6
	if err := getsockopt(fd, unix.SOL_IPV6, unsafe.Pointer(&raw), unix.SizeofSockaddrInet6); err != nil {
		if a, err4 := get4(fd); err4 == nil {
			return a, nil
		}
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom16(raw.Addr).Unmap(), port(raw.Port)), nil
}

func get4(fd int) (netip.AddrPort, error) {
	var raw unix.RawSockaddrInet4
	if err := getsockopt(fd, unix.SOL_IP, unsafe.Pointer(&raw), unix.SizeofSockaddrInet4); err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom4(raw.Addr), port(raw.Port)), nil
}

// port turns network order around.
func port(p uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&p))
	return uint16(b[0])<<8 | uint16(b[1])
}

func getsockopt(fd, level int, p unsafe.Pointer, size uint32) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soOriginalDst,
		uintptr(p), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return fmt.Errorf("original destination of socket %d: %w", fd, errno)
	}
	return nil
}
