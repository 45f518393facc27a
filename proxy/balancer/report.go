package balancer

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
)

// Report is what an endpoint says about itself in a response (ORCA, xds.data.orca.v3.OrcaLoadReport): the parts that weights
// follow from. A part that is 0 was not said.
type Report struct {
	Application float64 // utilization as the program sees it, 1 is all of what it is meant to use
	CPU         float64
	Requests    float64 // a second
	Errors      float64 // a second
}

// Names of the fields that reports travel in, headers or trailers.
const (
	ReportField       = "endpoint-load-metrics"     // "TEXT …", "JSON …" or "BIN …"
	ReportFieldBinary = "endpoint-load-metrics-bin" // base64 of the message
)

// maxReport bounds the message in a binary report, in bytes.
const maxReport = 4 << 10

// ParseReport reads the value of a field; binary says that it is ReportFieldBinary. A report that cannot be read is none: ok
// is false. Nothing is allocated.
func ParseReport(value []byte, isBinary bool) (r Report, ok bool) {
	if isBinary {
		ok = r.binary(value)
	} else if len(value) >= len("TEXT ") && value[4] == ' ' {
		switch rest := value[5:]; string(value[:4]) {
		case "TEXT":
			ok = r.text(rest)
		case "JSON":
			ok = r.json(rest)
		}
	} else if len(value) >= len("BIN ") && string(value[:4]) == "BIN " {
		ok = r.binary(value[4:])
	}
	if !ok || !r.valid() {
		return Report{}, false
	}
	return r, true
}

// valid: numbers that can be divided by. The message says that none is negative.
func (r *Report) valid() bool {
	for _, v := range [...]float64{r.Application, r.CPU, r.Requests, r.Errors} {
		if !(v >= 0) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}

// put takes a value by its name, in either of the ways in which messages are written; unknown ones are for others.
func (r *Report) put(name []byte, v float64) {
	switch string(name) {
	case "application_utilization", "applicationUtilization":
		r.Application = v
	case "cpu_utilization", "cpuUtilization":
		r.CPU = v
	case "rps_fractional", "rpsFractional":
		r.Requests = v
	case "eps":
		r.Errors = v
	}
}

// text reads "cpu_utilization=0.3, rps_fractional:10": both separators are in use.
func (r *Report) text(p []byte) bool {
	for len(p) > 0 {
		var pair []byte
		pair, p = cut(p, ',')
		if pair = trim(pair); len(pair) == 0 {
			continue
		}
		at := 0
		for at < len(pair) && pair[at] != '=' && pair[at] != ':' {
			at++
		}
		if at == len(pair) {
			return false
		}
		v, ok := number(trim(pair[at+1:]))
		if !ok {
			return false
		}
		r.put(trim(pair[:at]), v)
	}
	return true
}

func cut(p []byte, at byte) (before, after []byte) {
	for i, c := range p {
		if c == at {
			return p[:i], p[i+1:]
		}
	}
	return p, nil
}

func trim(p []byte) []byte {
	for len(p) > 0 && space(p[0]) {
		p = p[1:]
	}
	for len(p) > 0 && space(p[len(p)-1]) {
		p = p[:len(p)-1]
	}
	return p
}

func space(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// number reads a decimal number of at most 32 bytes.
func number(p []byte) (float64, bool) {
	if len(p) == 0 || len(p) > 32 {
		return 0, false
	}
	for _, c := range p { // no hexadecimal, no underscores, no words
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(string(p), 64)
	return v, err == nil
}

// json reads an object as protobuf writes it: numbers, also as strings; objects inside are passed over.
func (r *Report) json(p []byte) bool {
	s := scanner{p: p}
	return s.object(r, 0) && len(trim(s.p)) == 0
}

// scanner reads JSON, as much of it as a report has.
type scanner struct{ p []byte }

func (s *scanner) next(c byte) bool {
	s.p = trim(s.p)
	if len(s.p) == 0 || s.p[0] != c {
		return false
	}
	s.p = s.p[1:]
	return true
}

// maxDepth bounds objects in objects.
const maxDepth = 4

// object reads an object; with r nil for what is in it.
func (s *scanner) object(r *Report, depth int) bool {
	if depth > maxDepth || !s.next('{') {
		return false
	}
	if s.next('}') {
		return true
	}
	for {
		name, ok := s.quoted()
		if !ok || !s.next(':') || !s.value(r, name, depth) {
			return false
		}
		if !s.next(',') {
			return s.next('}')
		}
	}
}

func (s *scanner) value(r *Report, name []byte, depth int) bool {
	s.p = trim(s.p)
	if len(s.p) == 0 {
		return false
	}
	var v []byte
	switch s.p[0] {
	case '{':
		return s.object(nil, depth+1)
	case '"':
		var ok bool
		if v, ok = s.quoted(); !ok {
			return false
		}
	default:
		n := 0
		for n < len(s.p) && s.p[n] != ',' && s.p[n] != '}' && !space(s.p[n]) {
			n++
		}
		v, s.p = s.p[:n], s.p[n:]
	}
	if string(v) == "null" {
		return true
	}
	x, ok := number(v)
	if ok && r != nil {
		r.put(name, x)
	}
	return ok
}

// quoted reads a string; escapes are kept as they are: no name that matters has one.
func (s *scanner) quoted() ([]byte, bool) {
	if !s.next('"') {
		return nil, false
	}
	for i := 0; i < len(s.p); i++ {
		switch s.p[i] {
		case '\\':
			i++
		case '"':
			v := s.p[:i]
			s.p = s.p[i+1:]
			return v, true
		}
	}
	return nil, false
}

// binary reads the base64 of the message, padded or not.
func (r *Report) binary(p []byte) bool {
	p = trim(p)
	for len(p) > 0 && p[len(p)-1] == '=' {
		p = p[:len(p)-1]
	}
	var buf [maxReport]byte
	if base64.RawStdEncoding.DecodedLen(len(p)) > len(buf) {
		return false
	}
	n, err := base64.RawStdEncoding.Decode(buf[:], p)
	return err == nil && r.message(buf[:n])
}

// message reads the fields of an OrcaLoadReport (protobuf's wire format); others are passed over.
func (r *Report) message(p []byte) bool {
	var rps uint64 // which rps_fractional has replaced
	for len(p) > 0 {
		key, n := binary.Uvarint(p)
		if n <= 0 || key>>3 == 0 || key>>3 > 1<<29-1 {
			return false
		}
		p = p[n:]
		switch key & 7 {
		case 0:
			v, n := binary.Uvarint(p)
			if n <= 0 {
				return false
			}
			if key>>3 == 3 {
				rps = v
			}
			p = p[n:]
		case 1:
			if len(p) < 8 {
				return false
			}
			r.field(key>>3, math.Float64frombits(binary.LittleEndian.Uint64(p)))
			p = p[8:]
		case 2:
			size, n := binary.Uvarint(p)
			if n <= 0 || size > uint64(len(p)-n) {
				return false
			}
			p = p[n+int(size):]
		case 5:
			if len(p) < 4 {
				return false
			}
			p = p[4:]
		default:
			return false
		}
	}
	if r.Requests == 0 {
		r.Requests = float64(rps)
	}
	return true
}

// field takes a double by its number in the message.
func (r *Report) field(number uint64, v float64) {
	switch number {
	case 1:
		r.CPU = v
	case 6:
		r.Requests = v
	case 7:
		r.Errors = v
	case 9:
		r.Application = v
	}
}
