package decision

import (
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// The text of fields is "h:x-user=alice&h:x-user=bob&q:page": a kind, a name and a value for each value, no value where the field is
// not there, and what is not plain is written as in a URL.

const hex = "0123456789ABCDEF"

// AppendField appends one value of a field, or that it is not there.
func AppendField(dst []byte, kind model.ConditionKind, name, value string, there bool) []byte {
	if len(dst) > 0 {
		dst = append(dst, '&')
	}
	dst = append(dst, "hqck"[kind%4], ':')
	dst = appendEscaped(dst, name)
	if there {
		dst = appendEscaped(append(dst, '='), value)
	}
	return dst
}

func appendEscaped(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' || c == '&' || c == '=' {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

func unescaped(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			a, b := strings.IndexByte(hex, s[i+1]), strings.IndexByte(hex, s[i+2])
			if a >= 0 && b >= 0 {
				out, i = append(out, byte(a<<4|b)), i+2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// Fields are those that were told; it is an authz.Fields.
type Fields []Field

// Field is one with its values; none: it was not there.
type Field struct {
	Kind   model.ConditionKind
	Name   string
	Values []string
	Hashed bool // Values are Hash of them
}

// ParseFields reads what AppendField has written. What is not well formed is left out.
func ParseFields(s string) (out Fields) {
	for part := range strings.SplitSeq(s, "&") {
		kind := -1
		if len(part) > 2 && part[1] == ':' {
			if kind = strings.IndexByte("hqck", part[0]); part[0] == partHashed {
				kind = int(model.ConditionClaim)
			}
		}
		if kind < 0 {
			continue
		}
		name, value, there := strings.Cut(part[2:], "=")
		name = unescaped(name)
		at := slices.IndexFunc(out, func(f Field) bool { return int(f.Kind) == kind && f.Name == name })
		if at < 0 {
			at = len(out)
			out = append(out, Field{Kind: model.ConditionKind(kind), Name: name, Hashed: part[0] == partHashed})
		}
		if there {
			out[at].Values = append(out[at].Values, unescaped(value))
		}
	}
	return out
}

// Value implements authz.Fields.
func (f Fields) Value(kind model.ConditionKind, name string, i int) (string, bool) {
	for j := range f {
		if f[j].Kind == kind && f[j].Name == name {
			if i < len(f[j].Values) {
				return f[j].Values[i], true
			}
			return "", false
		}
	}
	return "", false
}

// Told reports whether it is known what a field was, or that it was not there.
func (f Fields) Told(kind model.ConditionKind, name string) bool {
	return slices.ContainsFunc(f, func(x Field) bool { return x.Kind == kind && x.Name == name })
}
