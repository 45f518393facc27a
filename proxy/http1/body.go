package http1

import (
	"bytes"

	"github.com/tulle-mesh/tulle/proxy/message"
)

// Body finds the body of one message in the bytes that follow its head. Its zero value is a message without a
// body. It holds no data.
type Body struct {
	framing  Framing
	left     int64 // of the length, or of the current chunk
	excess   int64 // framing bytes of small chunks not yet paid for by data
	state    chunkState
	trailers message.Head
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd // the CRLF after the data
	chunkTrailers
	chunkDone
)

// Reset makes b ready for a message with framing f, and keeps its memory.
func (b *Body) Reset(f Framing) {
	b.trailers.Reset()
	*b = Body{framing: f, left: f.Length, trailers: b.trailers}
}

// Next takes what it can from the start of p: n bytes, of which data (a part of p, perhaps empty) are body. Call
// it again with p[n:] until n is 0, then with more input, until done; what follows then is the next message.
// BodyUntilClose is never done; End says whether the end of the connection is the end of the body.
func (b *Body) Next(p []byte) (data []byte, n int, done bool, err error) {
	switch b.framing.Kind {
	case BodyNone:
		return nil, 0, true, nil
	case BodyLength:
		n = int(min(int64(len(p)), b.left))
		b.left -= int64(n)
		return p[:n:n], n, b.left == 0, nil
	case BodyUntilClose:
		return p, len(p), false, nil
	}
	return b.chunked(p)
}

// End is asked when the connection has ended: nil if that is where the body may end.
func (b *Body) End() error {
	switch {
	case b.framing.Kind == BodyNone, b.framing.Kind == BodyUntilClose,
		b.framing.Kind == BodyLength && b.left == 0, b.framing.Kind == BodyChunked && b.state == chunkDone:
		return nil
	}
	return ErrTruncated
}

// Trailers answers the trailer section of a chunked body that is done; it has no fields if there was none. Its
// slices point into the p that Next was given last. Fields that must not be trailers (framing, Host, and what
// belongs to one hop) are left out.
func (b *Body) Trailers() *message.Head { return &b.trailers }

// chunked reads a chunked body (RFC 9112 section 7.1).
func (b *Body) chunked(p []byte) (data []byte, n int, done bool, err error) {
	for {
		switch b.state {
		case chunkSize:
			k, err := b.size(p[n:])
			if k == 0 || err != nil {
				return nil, n, false, err
			}
			n += k
		case chunkData:
			if n == len(p) {
				return nil, n, false, nil
			}
			k := int(min(int64(len(p)-n), b.left))
			b.left -= int64(k)
			if b.left == 0 {
				b.state = chunkEnd
			}
			return p[n : n+k : n+k], n + k, false, nil
		case chunkEnd:
			if err := ends(p, n); err != nil {
				return nil, n, false, ErrChunk
			}
			if n+2 > len(p) {
				return nil, n, false, nil
			}
			n += 2
			b.state = chunkSize
		case chunkTrailers:
			k, err := b.section(p[n:])
			if k == 0 || err != nil {
				return nil, n, false, err
			}
			b.state = chunkDone
			return nil, n + k, true, nil
		case chunkDone:
			return nil, n, true, nil
		}
	}
}

// size reads a chunk-size line, and answers its length; 0: not there yet.
func (b *Body) size(p []byte) (int, error) {
	i, v := 0, int64(0)
	for i < len(p) && class[p[i]]&isHex != 0 {
		if i == 15 { // 60 bits: no sum of it overflows
			return 0, ErrChunk
		}
		v = v<<4 | int64(hexValue(p[i]))
		i++
	}
	if i == len(p) {
		return 0, nil
	}
	if i == 0 {
		return 0, ErrChunk
	}
	if p[i] == ';' {
		for i < len(p) && class[p[i]]&isValue != 0 && i < MaxChunkLine {
			i++
		}
		if i == MaxChunkLine {
			return 0, ErrChunkOverhead
		}
	}
	if err := ends(p, i); err != nil {
		return 0, ErrChunk
	}
	if i+2 > len(p) {
		return 0, nil
	}
	// Many tiny chunks, or long extensions, cost us more than they bring: as net/http, 16 bytes of framing per
	// chunk and as much framing as data are free, and 16 KB on top.
	b.excess = max(b.excess+int64(i)+4-16-2*v, 0)
	if b.excess > 16<<10 {
		return 0, ErrChunkOverhead
	}
	b.left, b.state = v, chunkData
	if v == 0 {
		b.state = chunkTrailers
	}
	return i + 2, nil
}

// section reads the trailer section when it is there as a whole, and answers its length.
func (b *Body) section(p []byte) (int, error) {
	if len(p) >= 2 && p[0] == '\r' && p[1] == '\n' {
		return 2, nil
	}
	if len(p) > 4<<10 && !bytes.Contains(p[:min(len(p), MaxTrailers)], endOfHead) {
		if len(p) >= MaxTrailers {
			return 0, ErrTrailers
		}
		return 0, nil
	}
	b.trailers.Reset()
	s := section{trailer: true}
	n, err := s.parse(p, 0, &b.trailers, Limits{Fields: DefaultFields})
	if n > MaxTrailers {
		return 0, ErrTrailers
	}
	return n, err
}

func hexValue(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
