package decode

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// plain answers what json.Marshal takes. The document has been walked: keys are texts, there are no aliases.
func plain(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = plain(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			list = append(list, plain(c))
		}
		return list
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!int", "!!float", "!!bool", "!!null":
			var v any
			if n.Decode(&v) == nil {
				return v
			}
		}
		return n.Value
	}
	return nil
}

// child answers the value of a mapping's key, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func nameOf(n *yaml.Node) string {
	if meta := child(n, "metadata"); meta != nil {
		if name := child(meta, "name"); name != nil && name.Kind == yaml.ScalarNode && name.Value != "" {
			return name.Value
		}
	}
	return "?"
}

// lineOf answers the line of a field, or of the nearest thing around it that the file has.
func lineOf(n *yaml.Node, path string) int {
	line := n.Line
	for _, step := range steps(path) {
		var next *yaml.Node
		if i, err := strconv.Atoi(step); err == nil && n.Kind == yaml.SequenceNode {
			if i < len(n.Content) {
				next = n.Content[i]
			}
		} else if n.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					next, line = n.Content[i+1], n.Content[i].Line
				}
			}
		}
		if next == nil {
			return line
		}
		if n.Kind == yaml.SequenceNode {
			line = next.Line
		}
		n = next
	}
	return line
}

// steps cuts "spec.rules[0].name" into spec, rules, 0, name. A label's key may hold dots: what comes after
// "labels." is one step.
func steps(path string) []string {
	const labels = "metadata.labels."
	if rest, ok := strings.CutPrefix(path, labels); ok {
		return []string{"metadata", "labels", rest}
	}
	return strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// describe says what a node is, for an error.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	v := n.Value
	if len(v) > 40 {
		v = v[:40] + "..."
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + v
	case "!!bool":
		return "the truth value " + v
	case "!!null":
		return "nothing"
	}
	return "the text " + strconv.Quote(v)
}
