// Package hpack is header compression for HTTP/2 (RFC 7541): Decoder and Encoder. Neither allocates in a
// steady state. It never does I/O and knows nothing of HTTP beyond the static table. A Decoder or Encoder is
// not safe for concurrent use; its zero value is not ready, call Init. Start reading at Decoder.Next.
package hpack

// Field is a decoded field. Its bytes point into the block that was given or into the Decoder, and are valid
// until the next Begin.
type Field struct {
	Name, Value []byte
	Sensitive   bool  // never indexed (RFC 7541 section 7.1)
	Class       uint8 // what Classify answered
}

// Decoder decodes header blocks.
type Decoder struct{}

// Encoder encodes header blocks.
type Encoder struct{}
