package model

import "strings"

// PathKey answers the segment of a path that a template marks in braces, as it is written: "42" for "/users/42/cart" and
// "/users/{id}". The template's other segments have to be the path's, "*" is any one, and the path may go on behind them. Empty: the path is not like
// that. What stands behind "?" is no part of it. Nothing is allocated.
func PathKey(target []byte, template string) (key []byte) {
	for template != "" {
		if len(target) == 0 || target[0] != '/' {
			return nil
		}
		want, _, _ := strings.Cut(template[1:], "/")
		end := 1
		for end < len(target) && target[end] != '/' && target[end] != '?' {
			end++
		}
		is := target[1:end]
		switch {
		case strings.HasPrefix(want, "{"):
			if key = is; len(key) == 0 {
				return nil
			}
		case want == "*" && len(is) > 0:
		case string(is) != want:
			return nil
		}
		target, template = target[end:], template[1+len(want):]
	}
	return key
}
