package bootstrap

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// lineOf answers the line of the field at path, or of the innermost object on the way that is in the file.
func lineOf(n *yaml.Node, path string) int {
	line := n.Line
	parts := strings.Split(strings.ReplaceAll(path, "[", ".["), ".")
	for len(parts) > 0 {
		for n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		used := 0
		for next == nil && used < len(parts) { // names of extensions have dots
			used++
			if child, at := step(n, strings.Join(parts[:used], ".")); child != nil {
				next, line = child, at
			}
		}
		if next == nil {
			return line
		}
		n, parts = next, parts[used:]
	}
	return line
}

// step answers a member or element and the line that it begins on.
func step(n *yaml.Node, part string) (*yaml.Node, int) {
	if i, ok := strings.CutPrefix(part, "["); ok && n.Kind == yaml.SequenceNode {
		k, err := strconv.Atoi(strings.TrimSuffix(i, "]"))
		if err != nil || k >= len(n.Content) {
			return nil, 0
		}
		return n.Content[k], n.Content[k].Line
	}
	if n.Kind != yaml.MappingNode {
		return nil, 0
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; k.Value == part || k.Value == camel(part) {
			return n.Content[i+1], k.Line
		}
	}
	return nil, 0
}

// camel is how JSON writes a field's name.
func camel(s string) string {
	words := strings.Split(s, "_")
	for i, w := range words[1:] {
		if w != "" {
			words[i+1] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}
