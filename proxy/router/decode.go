package router

import (
	"io"
	"unicode/utf8"

	"github.com/tulle-mesh/tulle/proxy/message"
)

// encoded reports whether v has to be decoded before it means itself.
func encoded(v []byte) bool {
	for _, c := range v {
		if c == '%' || c == '+' {
			return true
		}
	}
	return false
}

// next answers the first byte of v after decoding, and how many bytes of v it took. A "%" that two hex digits
// do not follow stands for itself.
func next(v []byte) (c byte, n int) {
	switch {
	case v[0] == '+':
		return ' ', 1
	case v[0] == '%' && len(v) >= 3 && isHex(v[1]) && isHex(v[2]):
		return unhex(v[1])<<4 | unhex(v[2]), 3
	}
	return v[0], 1
}

// decodedEqual reports whether v, decoded (application/x-www-form-urlencoded), equals want.
func decodedEqual(v []byte, want string) bool {
	i := 0
	for len(v) > 0 {
		c, n := next(v)
		if i >= len(want) || want[i] != c {
			return false
		}
		v = v[n:]
		i++
	}
	return i == len(want)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}

// decoder gives a regular expression the runes of an encoded value, decoded.
type decoder struct{ in []byte }

// ReadRune implements io.RuneReader.
func (d *decoder) ReadRune() (rune, int, error) {
	if len(d.in) == 0 {
		return 0, 0, io.EOF
	}
	var b [utf8.UTFMax]byte
	have, in := 0, d.in
	for have < len(b) && len(in) > 0 {
		c, n := next(in)
		b[have], in = c, in[n:]
		have++
		if utf8.FullRune(b[:have]) {
			break
		}
	}
	r, size := utf8.DecodeRune(b[:have])
	for range size {
		_, n := next(d.in)
		d.in = d.in[n:]
	}
	return r, size, nil
}

// joined gives a regular expression the lines of one header joined by ",".
type joined struct {
	h     *message.Head
	name  string
	field int // next to look at
	value []byte
	begun bool
}

// ReadRune implements io.RuneReader.
func (j *joined) ReadRune() (rune, int, error) {
	for len(j.value) == 0 {
		if j.field == len(j.h.Fields) {
			return 0, 0, io.EOF
		}
		f := &j.h.Fields[j.field]
		j.field++
		if !message.EqualFold(f.Name, j.name) {
			continue
		}
		j.value = f.Value
		if j.begun {
			return ',', 1, nil
		}
		j.begun = true
	}
	r, size := utf8.DecodeRune(j.value)
	j.value = j.value[size:]
	return r, size, nil
}
