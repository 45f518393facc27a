package authz

import (
	"fmt"
	"strings"
)

// CheckTemplate reports what is wrong with a path template: "/a/{id}/b", "/files/{rest...}".
func CheckTemplate(s string) error {
	_, err := parseTemplate(s)
	return err
}

// parseTemplate answers the elements; "{}" stands for one element, "{...}" as the last for any number of them, also none.
func parseTemplate(s string) ([]string, error) {
	if s == "" || s[0] != '/' {
		return nil, fmt.Errorf("template %q does not begin with /", s)
	}
	parts := strings.Split(s[1:], "/")
	for i, p := range parts {
		switch {
		case !strings.ContainsAny(p, "{}"):
		case p[0] != '{' || p[len(p)-1] != '}' || strings.ContainsAny(p[1:len(p)-1], "{}"):
			return nil, fmt.Errorf("template %q: %q is neither plain nor one {name}", s, p)
		case strings.HasSuffix(p, "...}"):
			if i != len(parts)-1 {
				return nil, fmt.Errorf("template %q: %q can only be the last element", s, p)
			}
			parts[i] = "{...}"
		default:
			parts[i] = "{}"
		}
	}
	return parts, nil
}

// fitsTemplate: an element stands for exactly one that is not empty.
func fitsTemplate(parts []string, s string) bool {
	if s == "" || s[0] != '/' {
		return false
	}
	s = s[1:]
	for i, p := range parts {
		if p == "{...}" {
			return true
		}
		elem, rest, more := strings.Cut(s, "/")
		if p == "{}" && elem == "" || p != "{}" && p != elem {
			return false
		}
		if i == len(parts)-1 {
			return !more
		}
		if !more {
			return parts[i+1] == "{...}" // "/files" fits "/files/{rest...}"
		}
		s = rest
	}
	return false
}
