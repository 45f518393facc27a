package health

import (
	"encoding/binary"
	"errors"
	"math"
)

// The messages of grpc.health.v1.Health/Check, with their gRPC frame (1 byte of flags, 4 bytes of length):
// https://github.com/grpc/grpc/blob/master/doc/health-checking.md.

// GRPCPath is what is asked with POST.
const GRPCPath = "/grpc.health.v1.Health/Check"

// MaxAnswer is the longest answer that is read, in bytes, frame included.
const MaxAnswer = 4 << 10

// AppendQuestion appends a HealthCheckRequest for a service; "" is the server as a whole.
func AppendQuestion(dst []byte, service string) []byte {
	var m []byte
	if service != "" {
		m = append(m, 1<<3|2) // field 1, a string
		m = binary.AppendUvarint(m, uint64(len(service)))
		m = append(m, service...)
	}
	dst = append(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(m)))
	return append(dst, m...)
}

// serving is HealthCheckResponse.ServingStatus SERVING.
const serving = 1

// ErrAnswer is what ParseAnswer answers for bytes that are no HealthCheckResponse.
var ErrAnswer = errors.New("no HealthCheckResponse in one gRPC frame")

// ParseAnswer reads a HealthCheckResponse, frame included, and answers whether the service is serving. p is all of the
// response's body.
func ParseAnswer(p []byte) (ok bool, err error) {
	if len(p) < 5 || p[0] != 0 || uint64(binary.BigEndian.Uint32(p[1:])) != uint64(len(p)-5) {
		return false, ErrAnswer
	}
	var status uint64
	for p = p[5:]; len(p) > 0; {
		tag, n := binary.Uvarint(p)
		if n <= 0 || tag>>3 == 0 || tag>>3 > math.MaxInt32 {
			return false, ErrAnswer
		}
		value, m := field(tag, p[n:])
		if m < 0 || tag>>3 == 1 && tag&7 != 0 {
			return false, ErrAnswer
		}
		if tag>>3 == 1 {
			status = value // of several the last counts
		}
		p = p[n+m:]
	}
	return int32(status) == serving, nil
}

// field answers the value of a varint, and the length of a field's value; -1 if there is none.
func field(tag uint64, p []byte) (value uint64, length int) {
	switch tag & 7 {
	case 0:
		v, n := binary.Uvarint(p)
		if n <= 0 {
			return 0, -1
		}
		return v, n
	case 1:
		length = 8
	case 2:
		v, n := binary.Uvarint(p)
		if n <= 0 || v > uint64(len(p)-n) {
			return 0, -1
		}
		length = n + int(v)
	case 5:
		length = 4
	default: // groups: nobody sends them any more
		return 0, -1
	}
	if length > len(p) {
		return 0, -1
	}
	return 0, length
}
