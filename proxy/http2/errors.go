package http2

import (
	"errors"
	"strconv"
)

// ErrCode is why a stream or a connection ended (RFC 9113 section 7).
type ErrCode uint32

// Error codes.
const (
	NoError ErrCode = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
)

var codeNames = [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
	"STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR",
	"ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"}

func (e ErrCode) String() string {
	if int(e) < len(codeNames) {
		return codeNames[e]
	}
	return "error code " + strconv.FormatUint(uint64(e), 10)
}

// ConnError ends a connection.
type ConnError struct {
	Code ErrCode
	Msg  string // what the peer did
}

func (e *ConnError) Error() string { return "http2: " + e.Code.String() + ": " + e.Msg }

// Errors of Open.
var (
	ErrNoStreams = errors.New("http2: the peer takes no more streams now; use another connection")
	ErrTooLarge  = errors.New("http2: the head is over the peer's SETTINGS_MAX_HEADER_LIST_SIZE")
	ErrNoConnect = errors.New("http2: the peer has not announced extended CONNECT; use HTTP/1.1")
)
