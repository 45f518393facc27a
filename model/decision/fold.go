package decision

// AppendFolded appends a path whose elements that are numbers, UUIDs or long hexadecimal numbers are "{id}", and reports whether there
// were any. It allocates only what dst needs.
func AppendFolded(dst, path []byte) (out []byte, folded bool) {
	for len(path) > 0 {
		if path[0] == '/' {
			dst, path = append(dst, '/'), path[1:]
			continue
		}
		n := 0
		for n < len(path) && path[n] != '/' {
			n++
		}
		if identifies(path[:n]) {
			dst, folded = append(dst, Any...), true
		} else {
			dst = append(dst, path[:n]...)
		}
		path = path[n:]
	}
	return dst, folded
}

// Any is the element of a template that stands for one element of a path.
const Any = "{id}"

// Fold answers a path as AppendFolded does.
func Fold(path string) (string, bool) {
	out, folded := AppendFolded(nil, []byte(path))
	return string(out), folded
}

// longHex is from how many digits on a hexadecimal number is one, and no word.
const longHex = 12

// identifies reports whether an element of a path names one of many things.
func identifies(e []byte) bool {
	digits, letters, dashes := 0, 0, 0
	for _, c := range e {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F':
			letters++
		case c == '-':
			dashes++
		default:
			return false
		}
	}
	switch {
	case dashes == 0 && letters == 0:
		return digits > 0
	case dashes == 0:
		return digits > 0 && len(e) >= longHex
	}
	return len(e) == 36 && dashes == 4 && e[8] == '-' && e[13] == '-' && e[18] == '-' && e[23] == '-'
}
