//go:build conformance

package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// heard is a message as it came over the wire. This reader is no part of the proxy: what both get wrong would be
// overlooked.
type heard struct {
	start    string // the start line
	fields   []Pair
	body     []byte
	trailers []Pair
	framing  string // "length", "chunked", "none", "end"
	cut      bool   // the connection ended inside
}

// all answers the values of the fields with a name, whatever its case.
func (m *heard) all(name string) (values []string) {
	for _, f := range m.fields {
		if strings.EqualFold(f.Name, name) {
			values = append(values, f.Value)
		}
	}
	return values
}

func (m *heard) first(name string) string {
	if v := m.all(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

var errShape = errors.New("not the shape of HTTP/1")

// line reads a line that ends in CR LF and has neither elsewhere.
func line(r *bufio.Reader) (string, error) {
	var b []byte
	for {
		p, err := r.ReadSlice('\n')
		b = append(b, p...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return string(b), err
		}
		break
	}
	text, ok := bytes.CutSuffix(b, []byte("\r\n"))
	if !ok || bytes.ContainsAny(text, "\r\n") {
		return string(b), fmt.Errorf("%w: line %q", errShape, b)
	}
	return string(text), nil
}

// section reads field lines up to the empty one.
func fieldSection(r *bufio.Reader) (fields []Pair, err error) {
	for {
		l, err := line(r)
		if err != nil || l == "" {
			return fields, err
		}
		name, value, ok := strings.Cut(l, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return fields, fmt.Errorf("%w: field %q", errShape, l)
		}
		fields = append(fields, Pair{name, strings.Trim(value, " \t")})
	}
}

// readHead reads a start line and fields. io.EOF before the first byte is answered as it is.
func readHead(r *bufio.Reader) (*heard, error) {
	if _, err := r.Peek(1); err != nil {
		return nil, err
	}
	start, err := line(r)
	if err != nil {
		return &heard{start: start, cut: true}, err
	}
	m := &heard{start: start, framing: "none"}
	if m.fields, err = fieldSection(r); err != nil {
		m.cut = true
	}
	return m, err
}

// readBody reads the body that the fields announce; untilEnd is what happens without any framing.
func (m *heard) readBody(r *bufio.Reader, untilEnd bool) (err error) {
	lengths, encodings := m.all("content-length"), m.all("transfer-encoding")
	switch {
	case len(lengths)+len(encodings) > 1:
		return fmt.Errorf("%w: framed by %q and %q", errShape, lengths, encodings)
	case len(encodings) == 1:
		if m.framing = "chunked"; encodings[0] != "chunked" {
			return fmt.Errorf("%w: transfer-encoding %q", errShape, encodings[0])
		}
		err = m.chunks(r)
	case len(lengths) == 1:
		m.framing = "length"
		var n int64
		if n, err = strconv.ParseInt(lengths[0], 10, 64); err != nil || n < 0 || strconv.FormatInt(n, 10) != lengths[0] {
			return fmt.Errorf("%w: content-length %q", errShape, lengths[0])
		}
		m.body, err = io.ReadAll(io.LimitReader(r, n))
		if err == nil && int64(len(m.body)) < n {
			err = io.ErrUnexpectedEOF
		}
	case untilEnd:
		m.framing = "end"
		m.body, err = io.ReadAll(r)
	}
	m.cut = err != nil
	return err
}

func (m *heard) chunks(r *bufio.Reader) error {
	for {
		l, err := line(r)
		if err != nil {
			return err
		}
		size, _, _ := strings.Cut(l, ";")
		n, err := strconv.ParseUint(size, 16, 31)
		if err != nil {
			return fmt.Errorf("%w: chunk size %q", errShape, l)
		}
		if n == 0 {
			m.trailers, err = fieldSection(r)
			return err
		}
		data := make([]byte, n+2)
		k, err := io.ReadFull(r, data)
		m.body = append(m.body, data[:min(k, int(n))]...)
		if err != nil {
			return err
		}
		if string(data[n:]) != "\r\n" {
			return fmt.Errorf("%w: chunk ends in %q", errShape, data[n:])
		}
	}
}

// match compares the fields of a message with what is wanted of them. exact: the case of names in X- counts.
func match(where string, fields, has []Pair, not []string, exact bool) (problems []string) {
	wanted := map[string][]Pair{}
	for _, p := range has {
		name := strings.ToLower(p.Name)
		wanted[name] = append(wanted[name], p)
	}
	for name, want := range wanted {
		var got []Pair
		for _, f := range fields {
			if strings.EqualFold(f.Name, name) {
				got = append(got, f)
			}
		}
		same := len(got) == len(want)
		for i := 0; same && i < len(got); i++ {
			same = got[i].Value == want[i].Value && (!exact || !strings.HasPrefix(want[i].Name, "X-") || got[i].Name == want[i].Name)
		}
		if !same {
			problems = append(problems, fmt.Sprintf("%s has %.200q, want %.200q", where, got, want))
		}
	}
	for _, name := range not {
		for _, f := range fields {
			if strings.EqualFold(f.Name, name) {
				problems = append(problems, fmt.Sprintf("%s has %q", where, f))
			}
		}
	}
	return problems
}
