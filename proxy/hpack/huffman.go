package hpack

import "encoding/binary"

// fastBits is how many bits are looked up at once; the codes of all letters, digits and usual signs fit.
const fastBits = 10

// maxBits is the length of the longest code.
const maxBits = 30

// huffman is what decoding needs, derived from the codes.
type huffman struct {
	fast  [1 << fastBits]struct{ symbol, bits uint8 } // bits 0: a longer code
	limit [maxBits + 1]uint32                         // first 30-bit window that is above all codes of this length
	index [maxBits + 1]int32                          // of the code 0 of this length in sorted, had it one
	order [256]uint8                                  // symbols by length and code (the code is canonical)
}

var huff = newHuffman()

func newHuffman() (h huffman) {
	n := 0
	for bits := 1; bits <= maxBits; bits++ {
		start, first, last := n, uint32(0), uint32(0)
		for s := range huffmanCodes {
			if int(huffmanLen[s]) != bits {
				continue
			}
			code := huffmanCodes[s]
			if n == start {
				first = code
			}
			last = code + 1
			h.order[n] = uint8(s)
			n++
			if bits <= fastBits {
				for i := code << (fastBits - bits); i < (code+1)<<(fastBits-bits); i++ {
					h.fast[i].symbol, h.fast[i].bits = uint8(s), uint8(bits)
				}
			}
		}
		h.index[bits] = int32(start) - int32(first)
		h.limit[bits] = last << (maxBits - bits)
	}
	return h
}

// slow decodes one code that is longer than fastBits, left-aligned in acc. bits 0: it is EOS.
func (h *huffman) slow(acc uint64) (symbol, bits uint8) {
	w := uint32(acc >> (64 - maxBits))
	for n := fastBits + 1; n <= maxBits; n++ {
		if w < h.limit[n] {
			return h.order[int32(w>>(maxBits-n))+h.index[n]], uint8(n)
		}
	}
	return 0, 0
}

// huffmanBound is the most bytes that n bytes of Huffman code can stand for: the shortest code has 5 bits.
func huffmanBound(n int) int { return n * 8 / 5 }

// appendDecoded appends what src stands for. dst must have room for huffmanBound(len(src)) bytes.
func appendDecoded(dst, src []byte) ([]byte, error) {
	var acc uint64 // bits not yet decoded, left-aligned
	var n uint     // how many
	j := len(dst)
	dst = dst[:j+huffmanBound(len(src))]
	for {
		if len(src) >= 8 {
			acc |= binary.BigEndian.Uint64(src) >> n
			k := (63 - n) >> 3
			src = src[k:]
			n += k * 8
			acc &= ^uint64(0) << (64 - n)
		} else {
			for ; n <= 56 && len(src) > 0; n += 8 {
				acc |= uint64(src[0]) << (56 - n)
				src = src[1:]
			}
		}
		if n < maxBits {
			break // nothing more to load
		}
		for n >= maxBits {
			e := huff.fast[acc>>(64-fastBits)]
			symbol, bits := e.symbol, e.bits
			if bits == 0 {
				if symbol, bits = huff.slow(acc); bits == 0 {
					return nil, ErrHuffman
				}
			}
			dst[j] = symbol
			j++
			acc <<= bits
			n -= uint(bits)
		}
	}
	// The rest, as if it went on with ones: padding is less than 8 bits of them.
	acc |= ^uint64(0) >> n
	for n > 0 {
		e := huff.fast[acc>>(64-fastBits)]
		symbol, bits := e.symbol, e.bits
		if bits == 0 {
			symbol, bits = huff.slow(acc)
		}
		if bits == 0 || uint(bits) > n {
			if n < 8 && acc == ^uint64(0) {
				return dst[:j], nil
			}
			return nil, ErrHuffman
		}
		dst[j] = symbol
		j++
		acc = acc<<bits | (1<<bits - 1)
		n -= uint(bits)
	}
	return dst[:j], nil
}

// huffmanSize answers how many bytes s takes in Huffman code.
func huffmanSize(s []byte) int {
	n := 0
	for _, b := range s {
		n += int(huffmanLen[b])
	}
	return (n + 7) / 8
}

// appendHuffman appends s in Huffman code.
func appendHuffman(dst, s []byte) []byte {
	var acc uint64 // right-aligned
	var n uint
	for _, b := range s {
		acc = acc<<huffmanLen[b] | uint64(huffmanCodes[b])
		n += uint(huffmanLen[b])
		if n >= 32 {
			n -= 32
			dst = binary.BigEndian.AppendUint32(dst, uint32(acc>>n))
		}
	}
	for ; n >= 8; n -= 8 {
		dst = append(dst, byte(acc>>(n-8)))
	}
	if n > 0 {
		dst = append(dst, byte(acc<<(8-n))|byte(1<<(8-n)-1))
	}
	return dst
}

// huffmanCodes and huffmanLen are the code (RFC 7541 appendix B), without EOS, which is 30 ones.
var huffmanCodes = [256]uint32{
	0x1ff8, 0x7fffd8, 0xfffffe2, 0xfffffe3, 0xfffffe4, 0xfffffe5, 0xfffffe6,
	0xfffffe7, 0xfffffe8, 0xffffea, 0x3ffffffc, 0xfffffe9, 0xfffffea, 0x3ffffffd, 0xfffffeb, 0xfffffec,
	0xfffffed, 0xfffffee, 0xfffffef, 0xffffff0, 0xffffff1, 0xffffff2, 0x3ffffffe, 0xffffff3, 0xffffff4,
	0xffffff5, 0xffffff6, 0xffffff7, 0xffffff8, 0xffffff9, 0xffffffa, 0xffffffb, 0x14, 0x3f8, 0x3f9, 0xffa,
	0x1ff9, 0x15, 0xf8, 0x7fa, 0x3fa, 0x3fb, 0xf9, 0x7fb, 0xfa, 0x16, 0x17, 0x18, 0x0, 0x1, 0x2, 0x19, 0x1a,
	0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x5c, 0xfb, 0x7ffc, 0x20, 0xffb, 0x3fc, 0x1ffa, 0x21, 0x5d, 0x5e, 0x5f, 0x60,
	0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72,
	0xfc, 0x73, 0xfd, 0x1ffb, 0x7fff0, 0x1ffc, 0x3ffc, 0x22, 0x7ffd, 0x3, 0x23, 0x4, 0x24, 0x5, 0x25, 0x26,
	0x27, 0x6, 0x74, 0x75, 0x28, 0x29, 0x2a, 0x7, 0x2b, 0x76, 0x2c, 0x8, 0x9, 0x2d, 0x77, 0x78, 0x79, 0x7a,
	0x7b, 0x7ffe, 0x7fc, 0x3ffd, 0x1ffd, 0xffffffc, 0xfffe6, 0x3fffd2, 0xfffe7, 0xfffe8, 0x3fffd3, 0x3fffd4,
	0x3fffd5, 0x7fffd9, 0x3fffd6, 0x7fffda, 0x7fffdb, 0x7fffdc, 0x7fffdd, 0x7fffde, 0xffffeb, 0x7fffdf,
	0xffffec, 0xffffed, 0x3fffd7, 0x7fffe0, 0xffffee, 0x7fffe1, 0x7fffe2, 0x7fffe3, 0x7fffe4, 0x1fffdc,
	0x3fffd8, 0x7fffe5, 0x3fffd9, 0x7fffe6, 0x7fffe7, 0xffffef, 0x3fffda, 0x1fffdd, 0xfffe9, 0x3fffdb,
	0x3fffdc, 0x7fffe8, 0x7fffe9, 0x1fffde, 0x7fffea, 0x3fffdd, 0x3fffde, 0xfffff0, 0x1fffdf, 0x3fffdf,
	0x7fffeb, 0x7fffec, 0x1fffe0, 0x1fffe1, 0x3fffe0, 0x1fffe2, 0x7fffed, 0x3fffe1, 0x7fffee, 0x7fffef,
	0xfffea, 0x3fffe2, 0x3fffe3, 0x3fffe4, 0x7ffff0, 0x3fffe5, 0x3fffe6, 0x7ffff1, 0x3ffffe0, 0x3ffffe1,
	0xfffeb, 0x7fff1, 0x3fffe7, 0x7ffff2, 0x3fffe8, 0x1ffffec, 0x3ffffe2, 0x3ffffe3, 0x3ffffe4, 0x7ffffde,
	0x7ffffdf, 0x3ffffe5, 0xfffff1, 0x1ffffed, 0x7fff2, 0x1fffe3, 0x3ffffe6, 0x7ffffe0, 0x7ffffe1, 0x3ffffe7,
	0x7ffffe2, 0xfffff2, 0x1fffe4, 0x1fffe5, 0x3ffffe8, 0x3ffffe9, 0xffffffd, 0x7ffffe3, 0x7ffffe4, 0x7ffffe5,
	0xfffec, 0xfffff3, 0xfffed, 0x1fffe6, 0x3fffe9, 0x1fffe7, 0x1fffe8, 0x7ffff3, 0x3fffea, 0x3fffeb,
	0x1ffffee, 0x1ffffef, 0xfffff4, 0xfffff5, 0x3ffffea, 0x7ffff4, 0x3ffffeb, 0x7ffffe6, 0x3ffffec, 0x3ffffed,
	0x7ffffe7, 0x7ffffe8, 0x7ffffe9, 0x7ffffea, 0x7ffffeb, 0xffffffe, 0x7ffffec, 0x7ffffed, 0x7ffffee,
	0x7ffffef, 0x7fffff0, 0x3ffffee,
}

var huffmanLen = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6,
	8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
	10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
	8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5,
	5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23,
	23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
	21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23,
	23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27,
	27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24,
	20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27,
	27, 28, 27, 27, 27, 27, 27, 26,
}
