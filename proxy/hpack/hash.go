package hpack

import (
	"encoding/binary"
	"math/bits"
)

// hash mixes b into seed. It need not withstand an attacker: a collision costs a few bytes of compression,
// never more time.
func hash(seed uint64, b []byte) uint64 {
	const k = 0x9e3779b97f4a7c15
	h := seed ^ uint64(len(b))*0xd6e8feb86659fd93
	for ; len(b) >= 8; b = b[8:] {
		hi, lo := bits.Mul64(h^binary.LittleEndian.Uint64(b), k)
		h = hi ^ lo
	}
	var w uint64
	if n := len(b); n >= 4 {
		w = uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<32
	} else if n > 0 {
		w = uint64(b[0]) | uint64(b[n>>1])<<8 | uint64(b[n-1])<<16
	}
	hi, lo := bits.Mul64(h^w^0xa0761d6478bd642f, k)
	return hi ^ lo
}
