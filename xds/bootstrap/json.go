package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file.
const (
	maxDepth  = 64
	maxOutput = 4 * maxSize // aliases can be repeated
)

// writer writes YAML nodes as JSON, each value on the line that it has in the file where that is possible.
type writer struct {
	name string
	out  bytes.Buffer
	line int // of what comes next, from 0
}

func (w *writer) fail(n *yaml.Node, format string, args ...any) error {
	return &Error{File: w.name, Line: n.Line, Why: fmt.Sprintf(format, args...)}
}

// reach goes down to the line of n.
func (w *writer) reach(n *yaml.Node) {
	for w.line < n.Line-1 {
		w.out.WriteByte('\n')
		w.line++
	}
}

func (w *writer) value(n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return w.fail(n, "is nested deeper than %d", maxDepth)
	}
	if w.out.Len() > maxOutput {
		return w.fail(n, "is too large once its aliases are written out")
	}
	w.reach(n)
	switch n.Kind {
	case yaml.AliasNode:
		return w.value(n.Alias, depth+1)
	case yaml.MappingNode:
		return w.object(n, depth)
	case yaml.SequenceNode:
		w.out.WriteByte('[')
		for i, c := range n.Content {
			if i > 0 {
				w.out.WriteByte(',')
			}
			if err := w.value(c, depth+1); err != nil {
				return err
			}
		}
		w.out.WriteByte(']')
		return nil
	}
	return w.scalar(n)
}

func (w *writer) object(n *yaml.Node, depth int) error {
	pairs, err := w.pairs(n, depth)
	if err != nil {
		return err
	}
	w.out.WriteByte('{')
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			w.out.WriteByte(',')
		}
		w.reach(pairs[i])
		w.text(pairs[i].Value)
		w.out.WriteByte(':')
		if err := w.value(pairs[i+1], depth+1); err != nil {
			return err
		}
	}
	w.out.WriteByte('}')
	return nil
}

// pairs answers keys and values, those of merge keys (<<) behind the object's own.
func (w *writer) pairs(n *yaml.Node, depth int) ([]*yaml.Node, error) {
	var own, merged []*yaml.Node
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			return nil, w.fail(k, "a key is no text")
		}
		if line, ok := seen[k.Value]; ok {
			return nil, w.fail(k, "%q is there already, on line %d", k.Value, line)
		}
		seen[k.Value] = k.Line
		if k.Tag == "!!merge" {
			for v.Kind == yaml.AliasNode {
				v = v.Alias
			}
			if v.Kind != yaml.MappingNode || depth > maxDepth {
				return nil, w.fail(k, "<< merges one object")
			}
			more, err := w.pairs(v, depth+1)
			if err != nil {
				return nil, err
			}
			merged = append(merged, more...)
			continue
		}
		own = append(own, k, v)
	}
	for i := 0; i < len(merged); i += 2 {
		if _, ok := seen[merged[i].Value]; !ok {
			own = append(own, merged[i], merged[i+1])
		}
	}
	return own, nil
}

func (w *writer) scalar(n *yaml.Node) error {
	switch n.Tag {
	case "!!null":
		w.out.WriteString("null")
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return w.fail(n, "%q is neither true nor false", n.Value)
		}
		fmt.Fprint(&w.out, b)
	case "!!int":
		var i int64
		var u uint64
		if n.Decode(&i) == nil {
			fmt.Fprint(&w.out, i)
		} else if n.Decode(&u) == nil {
			fmt.Fprint(&w.out, u)
		} else {
			w.text(n.Value)
		}
	case "!!float":
		var f float64
		if err := n.Decode(&f); err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			w.text(n.Value)
			return nil
		}
		b, err := json.Marshal(f)
		if err != nil {
			return w.fail(n, "%q is no number", n.Value)
		}
		w.out.Write(b)
	default: // text, and what YAML alone takes for more: times, binary
		w.text(n.Value)
	}
	return nil
}

func (w *writer) text(s string) {
	b, err := json.Marshal(s)
	if err != nil { // text always can be written
		b = []byte(`""`)
	}
	w.out.Write(b)
}
