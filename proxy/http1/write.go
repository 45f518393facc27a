package http1

import (
	"strconv"

	"github.com/tulle-mesh/tulle/proxy/message"
)

// AppendRequest appends the head of a request: Host first, then h's fields, then what f and h say about this
// hop. It writes HTTP/1.1 whatever h.Version is. dst is answered unchanged when the request cannot be written:
// a Method that is no token, a space or control character in Target or Authority, BodyUntilClose.
//
// f decides the framing: BodyLength writes Content-Length (0 too), BodyChunked writes Transfer-Encoding, and
// BodyNone writes Content-Length: 0 if h.ContentLength is 0 or the method is one whose requests have a body.
// Fields that belong to a hop or to framing are left out although h.Fields has them, and so is a field with a
// malformed name or a control character in its value.
func AppendRequest(dst []byte, h *message.Head, f Framing) []byte {
	connect := string(h.Method) == "CONNECT"
	target := h.Target
	if connect {
		target = h.Authority
	}
	switch {
	case len(h.Method) == 0 || !all(h.Method, isToken), !all(target, isTarget), !all(h.Authority, isTarget),
		connect && len(target) == 0, f.Kind == BodyUntilClose:
		return dst
	}
	dst = append(dst, h.Method...)
	dst = append(dst, ' ')
	if len(target) == 0 {
		dst = append(dst, '/')
	}
	dst = append(dst, target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, h.Authority...)
	dst = append(dst, crlf...)
	dst = appendFields(dst, h)
	switch f.Kind {
	case BodyNone:
		if !connect && (h.ContentLength == 0 || hasBody(h.Method)) {
			dst = append(dst, "Content-Length: 0\r\n"...)
		}
	case BodyLength:
		dst = appendLength(dst, f.Length)
	case BodyChunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	if h.Trailers {
		dst = append(dst, "TE: trailers\r\n"...)
	}
	dst = appendConnection(dst, h, h.Close, h.Trailers)
	return append(dst, crlf...)
}

// AppendResponse appends the head of a response as HTTP/1.1. The reason phrase is h.Reason, or the standard one
// if that is nil. dst is answered unchanged if h.Status has not three digits.
//
// f decides the framing as in AppendRequest; BodyUntilClose adds Connection: close. With BodyNone h.ContentLength
// is written if stated (HEAD, 304) but never for 1xx and 204; a response that could have a body and has none
// (but is no answer to HEAD) needs Framing{BodyLength, 0}. h.Version HTTP10 means that the receiver speaks
// HTTP/1.0: unless h.Close it is told Connection: keep-alive.
func AppendResponse(dst []byte, h *message.Head, f Framing) []byte {
	if h.Status < 100 || h.Status > 999 {
		return dst
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(h.Status), 10)
	dst = append(dst, ' ')
	if h.Reason != nil && all(h.Reason, isValue) {
		dst = append(dst, h.Reason...)
	} else {
		dst = append(dst, reasonPhrase(h.Status)...)
	}
	dst = append(dst, crlf...)
	dst = appendFields(dst, h)
	bodyless := h.Status < 200 || h.Status == 204
	switch {
	case bodyless:
	case f.Kind == BodyNone && h.ContentLength >= 0:
		dst = appendLength(dst, h.ContentLength)
	case f.Kind == BodyLength:
		dst = appendLength(dst, f.Length)
	case f.Kind == BodyChunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	end := h.Close || f.Kind == BodyUntilClose && !bodyless
	if h.Version == message.HTTP10 && !end && h.Status >= 200 {
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	dst = appendConnection(dst, h, end, false)
	return append(dst, crlf...)
}

// AppendChunk appends data as one chunk; empty data appends nothing, because it would end the body.
func AppendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = strconv.AppendUint(dst, uint64(len(data)), 16)
	dst = append(dst, crlf...)
	dst = append(dst, data...)
	return append(dst, crlf...)
}

// AppendLastChunk ends a chunked body, with trailers unless nil.
func AppendLastChunk(dst []byte, trailers *message.Head) []byte {
	dst = append(dst, "0\r\n"...)
	if trailers != nil {
		dst = appendFields(dst, trailers)
	}
	return append(dst, crlf...)
}

const crlf = "\r\n"

// appendFields writes the fields that may stand in any section; a hop's own are written from the head.
func appendFields(dst []byte, h *message.Head) []byte {
	for i := range h.Fields {
		f := &h.Fields[i]
		if n := lookup(f.Name); n != nameOther && n != nameExpect {
			continue
		}
		if len(f.Name) == 0 || !all(f.Name, isToken) || !all(f.Value, isValue) {
			continue
		}
		dst = append(dst, f.Name...)
		dst = append(dst, ": "...)
		dst = append(dst, f.Value...)
		dst = append(dst, crlf...)
	}
	return dst
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, crlf...)
}

func appendConnection(dst []byte, h *message.Head, end, te bool) []byte {
	up := len(h.Upgrade) > 0 && all(h.Upgrade, isValue)
	if up {
		dst = append(dst, "Upgrade: "...)
		dst = append(dst, h.Upgrade...)
		dst = append(dst, crlf...)
	}
	if !up && !end && !te {
		return dst
	}
	dst = append(dst, "Connection: "...)
	sep := ""
	for _, o := range [...]struct {
		on   bool
		text string
	}{{up, "upgrade"}, {te, "TE"}, {end, "close"}} {
		if o.on {
			dst = append(dst, sep...)
			dst = append(dst, o.text...)
			sep = ", "
		}
	}
	return append(dst, crlf...)
}

func hasBody(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

// reasonPhrase answers the registered phrase of a status, or "".
func reasonPhrase(status int) string {
	if status < len(phrases) {
		return phrases[status]
	}
	return ""
}

var phrases = [...]string{
	100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
	205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
	305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
	409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Request Entity Too Large",
	414: "Request URI Too Long", 415: "Unsupported Media Type", 416: "Requested Range Not Satisfiable",
	417: "Expectation Failed", 418: "I'm a teapot", 421: "Misdirected Request", 422: "Unprocessable Entity",
	423: "Locked", 424: "Failed Dependency", 425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required",
	429: "Too Many Requests", 431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
	507: "Insufficient Storage", 508: "Loop Detected", 510: "Not Extended", 511: "Network Authentication Required",
}
