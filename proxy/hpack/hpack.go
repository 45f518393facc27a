// Package hpack is header compression for HTTP/2 (RFC 7541): Decoder and Encoder. Neither allocates in a
// steady state, and neither holds more than its table and the strings of one block. It never does I/O and
// knows nothing of HTTP beyond the static table. A Decoder or Encoder is not safe for concurrent use, and its
// zero value is not ready: call Init. Start reading at Decoder.Next and Encoder.Append; both stand on table.
package hpack

import "errors"

// DefaultTable is the size of the dynamic table that a peer may use unless told otherwise (RFC 9113 section
// 6.5.2), in bytes as RFC 7541 section 4.1 counts.
const DefaultTable = 4096

// overhead is what an entry costs beside its name and value (RFC 7541 section 4.1).
const overhead = 32

// Errors of Decoder.Next. After any of them the state of the table is unknown: the connection has to end
// with COMPRESSION_ERROR.
var (
	ErrTruncated = errors.New("hpack: block ends inside a field")
	ErrInteger   = errors.New("hpack: integer too large")
	ErrIndex     = errors.New("hpack: index outside both tables")
	ErrHuffman   = errors.New("hpack: invalid Huffman code")
	ErrUpdate    = errors.New("hpack: table size update too large or not at the start of a block")
	ErrBomb      = errors.New("hpack: block that decodes to far more than it may")
)

// Field is a decoded field. Its bytes point into the block that was given or into the Decoder, and are valid
// until the next Begin.
type Field struct {
	Name, Value []byte
	Sensitive   bool  // never indexed (RFC 7541 section 7.1)
	Class       uint8 // what Classify answered for it
}

// Classify lets the owner of a Decoder judge a field once, when its literal arrives, instead of at every
// reference to the table. known is the class of the field that the name was taken from, 0 if it is spelled
// out. It must be a pure function of its arguments and not answer 0.
type Classify func(name, value []byte, known uint8) uint8
