// Package http1 is the HTTP/1.0 and HTTP/1.1 codec (RFC 9112): heads, framing and bodies, both ways. It reads
// from and appends to byte slices and does nothing else: no I/O, no clock, no allocation in the steady state.
//
// It is strict. A message that two implementations could read differently is refused, never repaired: that is
// what request smuggling lives on. Whatever it accepts, net/http accepts too and reads the same way (held by
// the fuzz tests).
//
// A value of this package must not be used by two goroutines at once; the functions keep nothing. Start reading
// at ParseRequest.
package http1

// Kind says how the end of a body is found.
type Kind uint8

// Kinds of body (RFC 9112 section 6.3).
const (
	BodyNone       Kind = iota // there is none
	BodyLength                 // Content-Length, more than 0 when parsed
	BodyChunked                // Transfer-Encoding: chunked
	BodyUntilClose             // responses only: all bytes until the connection ends
)

// Framing is how the body of a message is delimited.
type Framing struct {
	Kind   Kind
	Length int64 // of BodyLength, in bytes
}

// Limits bound a head.
type Limits struct {
	Head   int // bytes from the first of the start line to the end of the empty line; 0: DefaultHead
	Fields int // lines in the field section; 0: DefaultFields
}

// Defaults of Limits, and the bounds of a chunked body that no limit can change.
const (
	DefaultHead   = 64 << 10
	DefaultFields = 200

	MaxChunkLine = 1 << 10  // bytes of one chunk-size line with its extensions
	MaxTrailers  = 16 << 10 // bytes of a trailer section
)

// Code is the class of an Error.
type Code uint8

// Codes.
const (
	BadRequest   Code = iota // the message breaks HTTP or is ambiguous
	HeadTooLarge             // a head over its Limits
	LineTooLong              // a request line that is as long as a whole head may be
)

// Error is why a message is refused. All errors of this package are pointers to preallocated values of this
// type, so they compare with ==.
type Error struct {
	Reason Code
	Msg    string
}

func (e *Error) Error() string { return "http/1: " + e.Msg }

// What is refused.
var (
	ErrHeadTooLarge   = &Error{HeadTooLarge, "head over the limit"}
	ErrLineTooLong    = &Error{LineTooLong, "request line over the limit"}
	ErrTooManyFields  = &Error{HeadTooLarge, "more fields than the limit"}
	ErrStartLine      = &Error{BadRequest, "malformed start line"}
	ErrVersion        = &Error{BadRequest, "version is neither HTTP/1.0 nor HTTP/1.1"}
	ErrTarget         = &Error{BadRequest, "malformed request target"}
	ErrLineEnd        = &Error{BadRequest, "line does not end in CR LF"}
	ErrFold           = &Error{BadRequest, "folded header line"}
	ErrFieldName      = &Error{BadRequest, "field name is not a token directly followed by a colon"}
	ErrFieldValue     = &Error{BadRequest, "control character in a field value"}
	ErrHost           = &Error{BadRequest, "Host is missing, repeated or malformed"}
	ErrLength         = &Error{BadRequest, "Content-Length is malformed or contradicts another"}
	ErrEncoding       = &Error{BadRequest, "Transfer-Encoding is not exactly chunked"}
	ErrLengthEncoding = &Error{BadRequest, "both Content-Length and Transfer-Encoding"}
	ErrConnection     = &Error{BadRequest, "Connection or Upgrade is malformed or repeated too often"}
	ErrNoBody         = &Error{BadRequest, "a body where there can be none"}
	ErrChunk          = &Error{BadRequest, "malformed chunk"}
	ErrChunkOverhead  = &Error{BadRequest, "chunks carry more framing than data"}
	ErrTrailers       = &Error{HeadTooLarge, "trailers over the limit"}
	ErrTruncated      = &Error{BadRequest, "connection ended inside a body"}
)
