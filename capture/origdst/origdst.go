// Package origdst answers where a captured connection wanted to go before the kernel turned it to us. It keeps
// nothing and may be called from any goroutine.
package origdst

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Option numbers of netfilter: SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST.
const soOriginalDst = 80

// Of answers the original destination of an accepted TCP socket. v6 says whether the socket is AF_INET6. It fails
// with ENOENT where the kernel's connection table does not know the connection. A client that connects to the
// capture port itself gets that port as its answer: the caller refuses it, or it would serve itself for ever.
func Of(fd int, v6 bool) (netip.AddrPort, error) {
	if v6 {
		var a unix.RawSockaddrInet6
		if err := getsockopt(fd, unix.SOL_IPV6, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil {
			return netip.AddrPort{}, err
		}
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), port(a.Port)), nil
	}
	var a unix.RawSockaddrInet4
	if err := getsockopt(fd, unix.SOL_IP, unsafe.Pointer(&a), unsafe.Sizeof(a)); err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), port(a.Port)), nil
}

// port reads a port that is in network order in memory.
func port(p uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return binary.BigEndian.Uint16(b[:])
}

func getsockopt(fd, level int, p unsafe.Pointer, size uintptr) error {
	n := uint32(size)
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soOriginalDst, uintptr(p), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return fmt.Errorf("original destination: %w", e)
	}
	return nil
}
