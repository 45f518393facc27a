// Package grpc is what a proxy has to know of gRPC beyond HTTP: grpc-timeout, and gRPC-Web, which is gRPC for clients
// that cannot read trailers. It promises that nothing is allocated in the steady state and that what it cannot read is
// refused. Pure; a value must not be used by two goroutines at once. Start reading at ParseTimeout and at Web (web.go).
package grpc

import (
	"strconv"
	"time"
)

// FieldTimeout is the request field with the client's deadline, as time that is left.
const FieldTimeout = "grpc-timeout"

// Forever is what a timeout that does not fit is read as.
const Forever = time.Duration(1<<63 - 1)

// ParseTimeout reads grpc-timeout: one to eight digits and a unit. ok is false if v is none.
func ParseTimeout(v []byte) (d time.Duration, ok bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n := int64(0)
	for _, c := range v[:len(v)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if n > int64(Forever/unit) {
		return Forever, true
	}
	return time.Duration(n) * unit, true
}

// AppendTimeout appends d in the finest unit whose eight digits hold it, rounded down. A negative d is 0.
func AppendTimeout(dst []byte, d time.Duration) []byte {
	d = max(d, 0)
	unit, name := time.Nanosecond, byte('n')
	switch {
	case d < 1e8:
	case d < 1e8*time.Microsecond:
		unit, name = time.Microsecond, 'u'
	case d < 1e8*time.Millisecond:
		unit, name = time.Millisecond, 'm'
	case d < 1e8*time.Second:
		unit, name = time.Second, 'S'
	default:
		unit, name = time.Minute, 'M' // 2^63 ns are 1.5e8 minutes
		if d >= 1e8*time.Minute {
			unit, name = time.Hour, 'H'
		}
	}
	return append(strconv.AppendInt(dst, int64(d/unit), 10), name)
}
