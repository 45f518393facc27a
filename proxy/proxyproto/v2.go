package proxyproto

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// Fields of a version 2 header (section 2.2).
const (
	head2     = 16 // signature, version and command, family and protocol, length
	cmdLocal  = 0x20
	cmdProxy  = 0x21
	stream4   = 0x11
	stream6   = 0x21
	typeCRC32 = 0x03 // PP2_TYPE_CRC32C
)

func parse2(p []byte) (h Header, n int, err error) {
	if len(p) > 12 && p[12]&0xfe != 0x20 { // version 2, command LOCAL or PROXY
		return h, 0, ErrMalformed
	}
	if len(p) < head2 {
		return h, 0, nil
	}
	n = head2 + int(binary.BigEndian.Uint16(p[14:]))
	if n > MaxV2 {
		return h, 0, ErrLong
	}
	h.Version = 2
	size := 0 // of the addresses
	if p[12] == cmdProxy {
		if size, err = family(p[13]); err != nil {
			return Header{}, 0, err
		}
		if head2+size > n {
			return Header{}, 0, ErrMalformed
		}
	}
	if len(p) < n {
		return Header{}, 0, nil
	}
	if p[12] == cmdLocal {
		h.Local = true // everything else is to be ignored, the family too
		return h, n, nil
	}
	a := p[head2 : head2+size]
	switch size {
	case 0:
		h.Local = true
	case 12:
		h.Source = addr2(a[:4], a[8:])
		h.Destination = addr2(a[4:8], a[10:])
	case 36:
		h.Source = addr2(a[:16], a[32:])
		h.Destination = addr2(a[16:32], a[34:])
	}
	if err := elements(p[:n], head2+size); err != nil {
		return Header{}, 0, err
	}
	return h, n, nil
}

// family answers the length of a family's addresses in bytes. Values that the specification does not list are refused, as
// it asks for.
func family(b byte) (int, error) {
	switch b {
	case 0: // AF_UNSPEC: nothing is said, and TLVs follow at once
		return 0, nil
	case stream4:
		return 12, nil
	case stream6:
		return 36, nil
	case 0x12, 0x22:
		return 0, ErrDatagram
	case 0x31, 0x32:
		return 0, ErrUnix
	}
	return 0, ErrMalformed
}

func addr2(a, port []byte) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a)
	return netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(port))
}

// elements walks over the TLVs of the header p, which begin at i; all are skipped but the checksum.
func elements(p []byte, i int) error {
	for i < len(p) {
		if len(p)-i < 3 {
			return ErrMalformed
		}
		size := int(binary.BigEndian.Uint16(p[i+1:]))
		value := i + 3
		if size > len(p)-value {
			return ErrMalformed
		}
		if p[i] == typeCRC32 {
			if size != 4 {
				return ErrMalformed
			}
			if checksum(p, value) != binary.BigEndian.Uint32(p[value:]) {
				return ErrChecksum
			}
		}
		i = value + size
	}
	return nil
}

// checksum answers the CRC32c of p with zeros for the four bytes at i.
func checksum(p []byte, i int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, p[:i])
	sum = crc32.Update(sum, table, make([]byte, 4))
	return crc32.Update(sum, table, p[i+4:])
}

// AppendV2 appends a header of version 2 without TLVs. Addresses that are not valid both make it LOCAL; if one of them is
// IPv6, both are written as IPv6.
func AppendV2(dst []byte, source, destination netip.AddrPort) []byte {
	dst = append(dst, signature2...)
	s, d, ok := pair(source.Addr(), destination.Addr())
	switch {
	case !ok:
		return append(dst, cmdLocal, 0, 0, 0)
	case s.Is4():
		a, b := s.As4(), d.As4()
		dst = append(append(append(dst, cmdProxy, stream4, 0, 12), a[:]...), b[:]...)
	default:
		a, b := s.As16(), d.As16()
		dst = append(append(append(dst, cmdProxy, stream6, 0, 36), a[:]...), b[:]...)
	}
	dst = binary.BigEndian.AppendUint16(dst, source.Port())
	return binary.BigEndian.AppendUint16(dst, destination.Port())
}
