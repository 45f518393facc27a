package v1alpha1

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/model/urlpath"
)

// policyPaths checks paths and templates that requests' paths are held against, and answers how many there are. What the one
// spelling of a path (model/urlpath) can never be is refused: nothing would ever fit it.
func (c *check) policyPaths(at string, list []string) int {
	for i, p := range list {
		here := fmt.Sprintf("%s[%d]", at, i)
		if strings.HasPrefix(p, "~") || len(p) > maxText {
			continue
		}
		if strings.ContainsAny(p, "{}") {
			c.template(here, p)
		}
		c.spelling(here, p)
	}
	return c.texts(at, list, "/", "a path, such as /items/{id}")
}

// spelling refuses what no request's path is by the time it is judged.
func (c *check) spelling(at, p string) {
	plain, fault := urlpath.Text(p)
	switch fault {
	case urlpath.None:
		if settled, ok := segments(plain); !ok {
			c.fail(at, "%q never fits: empty, . and .. segments are taken out of paths before they are judged; write %q", p, settled)
		}
	case urlpath.Escape: // a '%' that is meant as one
	case urlpath.Slash:
		c.fail(at, "%q never fits: a request with an escaped slash or a backslash in its path is answered 400; write / where segments meet", p)
	case urlpath.Parameters:
		c.fail(at, "%q never fits: a request with a ; in its path is answered 400; write the path without what follows it", p)
	case urlpath.Double:
		c.fail(at, "%q never fits: a request whose path is escaped twice is answered 400; write it without escapes", p)
	case urlpath.Fragment:
		c.fail(at, "%q never fits: a request with a # in its path is answered 400; write the path without what follows it", p)
	case urlpath.Control:
		c.fail(at, "%q never fits: a request with a control character in its path is answered 400; write it without", p)
	default:
		c.fail(at, "%q never fits: a request whose path is not UTF-8 is answered 400; write it in UTF-8", p)
	}
}

// segments answers a path without segments that no judged path has, and whether it was so already. What is cut off by a * may go on.
func segments(p string) (settled string, ok bool) {
	list := strings.Split(strings.TrimPrefix(p, "*"), "/")
	out := make([]string, 0, len(list))
	for i, s := range list {
		first, last := i == 0, i == len(list)-1
		switch {
		case first || last && (s == "" || strings.HasSuffix(p, "*")):
			out = append(out, s)
		case s == "..":
			out = out[:max(len(out)-1, 1)]
		case s != "" && s != ".":
			out = append(out, s)
		}
		if last && (s == "." || s == "..") && !first {
			out = append(out, "")
		}
	}
	if slices.Equal(out, list) {
		return p, true
	}
	settled = strings.Join(out, "/")
	if strings.HasPrefix(p, "*") {
		settled = "*" + settled
	}
	return settled, false
}
