package decode

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// walk compares a document with the Go type that it is to become.
type walk struct {
	*reader
	object string
}

func (w *walk) fail(n *yaml.Node, path, format string, args ...any) {
	w.reader.fail(n.Line, w.object, path, format, args...)
}

// check reports where node cannot become a value of type t.
func (w *walk) check(n *yaml.Node, t reflect.Type, path string, depth int) {
	switch {
	case depth > maxDepth:
		w.fail(n, path, "is nested more than %d deep", maxDepth)
		return
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		w.fail(n, path, "anchors and aliases are not supported: write the value out")
		return
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return // as if it were not there
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		w.custom(n, t, path)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		w.structure(n, t, path, depth)
	case reflect.Map:
		if w.is(n, yaml.MappingNode, "an object", path) {
			for key, v := range w.pairs(n, path) {
				w.check(v, t.Elem(), join(path, key.Value), depth+1)
			}
		}
	case reflect.Slice:
		if w.is(n, yaml.SequenceNode, "a list", path) {
			for i, v := range n.Content {
				w.check(v, t.Elem(), path+"["+strconv.Itoa(i)+"]", depth+1)
			}
		}
	default:
		w.scalar(n, t, path)
	}
}

func (w *walk) structure(n *yaml.Node, t reflect.Type, path string, depth int) {
	if !w.is(n, yaml.MappingNode, "an object", path) {
		return
	}
	known := map[string]reflect.Type{}
	fields(t, known)
	for key, v := range w.pairs(n, path) {
		ft, ok := known[key.Value]
		if !ok {
			w.fail(key, join(path, key.Value), "is not a field%s", suggestion(key.Value, known))
			continue
		}
		if path == "" && key.Value == "status" {
			continue // what the control plane says; it comes back with `tulle get -o yaml` and is not applied
		}
		w.check(v, ft, join(path, key.Value), depth+1)
	}
}

// pairs answers the keys and values of a mapping, and reports keys that are there twice or are no strings.
func (w *walk) pairs(n *yaml.Node, path string) func(func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		seen := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			switch {
			case k.ShortTag() == "!!merge":
				w.fail(k, path, "merge keys (<<) are not supported: write the fields out")
				continue
			case k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str":
				w.fail(k, path, "has a key that is not text: %s, put it in quotes", describe(k))
				continue
			case seen[k.Value] > 0:
				w.fail(k, join(path, k.Value), "is there twice, first on line %d: remove one", seen[k.Value])
				continue
			}
			seen[k.Value] = k.Line
			if !yield(k, v) {
				return
			}
		}
	}
}

// custom checks a type that reads its own JSON.
func (w *walk) custom(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.ScalarNode {
		w.fail(n, path, "must be a single value, this is %s", describe(n))
		return
	}
	text, err := json.Marshal(plain(n))
	if err == nil {
		err = json.Unmarshal(text, reflect.New(t).Interface())
	}
	if err != nil {
		w.fail(n, path, "cannot be read: %v", err)
	}
}

func (w *walk) scalar(n *yaml.Node, t reflect.Type, path string) {
	tag := n.ShortTag()
	isNumber := tag == "!!int"
	switch t.Kind() {
	case reflect.String:
		switch {
		case text(n):
		case n.Kind == yaml.ScalarNode:
			w.fail(n, path, "must be text, this is %s: put it in quotes", describe(n))
		default:
			w.fail(n, path, "must be text, this is %s", describe(n))
		}
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || tag != "!!bool" {
			w.fail(n, path, "must be true or false, this is %s", describe(n))
		}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Int16, reflect.Int8:
		var v int64
		if !isNumber || n.Decode(&v) != nil || reflect.Zero(t).OverflowInt(v) {
			w.fail(n, path, "must be a whole number of at most %d bits, this is %s", t.Bits(), describe(n))
		}
	case reflect.Uint, reflect.Uint32, reflect.Uint64, reflect.Uint16, reflect.Uint8:
		var v uint64
		if !isNumber || n.Decode(&v) != nil || reflect.Zero(t).OverflowUint(v) {
			w.fail(n, path, "must be a whole number of at most %d bits and not negative, this is %s", t.Bits(), describe(n))
		}
	case reflect.Float64, reflect.Float32:
		if v, ok := plain(n).(float64); !isNumber && (!ok || math.IsNaN(v) || math.IsInf(v, 0)) {
			w.fail(n, path, "must be a number, this is %s", describe(n))
		}
	default:
		w.fail(n, path, "is not supported")
	}
}

func (w *walk) is(n *yaml.Node, kind yaml.Kind, what, path string) bool {
	if n.Kind != kind {
		w.fail(n, path, "must be %s, this is %s", what, describe(n))
	}
	return n.Kind == kind
}

// text reports whether n is a string, or a bare date, which YAML takes for something else.
func text(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && (n.ShortTag() == "!!str" || n.ShortTag() == "!!timestamp")
}

// fields gathers the JSON names of a structure's fields, those of inlined ones too.
func fields(t reflect.Type, known map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case f.Anonymous && name == "" || strings.Contains(options, "inline"):
			fields(f.Type, known)
		case name != "":
			known[name] = f.Type
		default:
			known[f.Name] = f.Type
		}
	}
}

// suggestion answers the field that was probably meant, or all of them when they are few.
func suggestion(name string, known map[string]reflect.Type) string {
	var all []string
	for k := range known {
		all = append(all, k)
	}
	slices.Sort(all)
	best, far := "", 3
	for _, k := range all {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < far {
			best, far = k, d
		}
	}
	switch {
	case best != "":
		return ": did you mean " + best + "?"
	case len(all) <= 12:
		return ": write one of " + strings.Join(all, ", ")
	}
	return ": remove it"
}

// distance is the number of bytes to insert, remove or replace between two short words (at most 64 bytes).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return math.MaxInt
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			last, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, last+cost)
		}
	}
	return row[len(b)]
}
