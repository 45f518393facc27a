package decisions

import (
	"strings"

	"github.com/tulle-mesh/tulle/model/decision"
)

// node is a place in paths.
type node struct {
	next map[string]*node
	ends bool
}

func (n *node) to(element string) *node {
	if n.next == nil {
		n.next = map[string]*node{}
	}
	at := n.next[element]
	if at == nil {
		at = &node{}
		n.next[element] = at
	}
	return at
}

// merge puts what is below another node below n as well.
func (n *node) merge(o *node) {
	n.ends = n.ends || o.ends
	for element, below := range o.next {
		n.to(element).merge(below)
	}
}

// fold makes one of more than most different elements. An empty element ("/a/") is one of its own, as it fits no template.
func (n *node) fold(most int) {
	named := 0
	for element := range n.next {
		if element != "" {
			named++
		}
	}
	if named > most {
		one := &node{}
		for element, below := range n.next {
			if element != "" {
				one.merge(below)
				delete(n.next, element)
			}
		}
		n.next[decision.Any] = one
	}
	for _, below := range n.next {
		below.fold(most)
	}
}

// Templates answers for each path the template that it becomes, or itself: where more than most different elements are in one place,
// they are folded. What looks like an identifier is not folded for that alone (decision.Fold).
func Templates(paths []string, most int) map[string]string {
	root := &node{}
	for _, p := range paths {
		at := root
		for element := range strings.SplitSeq(p, "/") {
			at = at.to(element)
		}
		at.ends = true
	}
	root.fold(most)
	out := make(map[string]string, len(paths))
	for _, p := range paths {
		elements := strings.Split(p, "/")
		at := root
		for i, element := range elements {
			next := at.next[element]
			if next == nil {
				next, elements[i] = at.next[decision.Any], decision.Any
			}
			at = next
		}
		out[p] = strings.Join(elements, "/")
	}
	return out
}

// Fits reports whether a path, cut at its slashes, is one of a template's.
func Fits(template, path []string) bool {
	if len(template) != len(path) {
		return false
	}
	for i, t := range template {
		if t != path[i] && (t != decision.Any || path[i] == "") {
			return false
		}
	}
	return true
}
