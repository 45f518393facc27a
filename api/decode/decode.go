// Package decode turns files that users write, YAML or JSON with any number of documents, into objects. It is
// strict: what it does not know, what has the wrong type, what is there twice and what a kind's validation
// refuses is an error with file and line, and all of them are told at once (at most MaxErrors). It never
// answers half an object and never guesses. Pure, and safe for any input. Start reading at Read.
package decode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

// Bounds of one file.
const (
	MaxErrors    = 20      // told at once
	MaxBytes     = 1 << 20 // of text
	MaxDocuments = 100
	maxDepth     = 64
)

// Document is one object of a file.
type Document struct {
	Object v1alpha1.Object // defaulted and valid
	Kind   v1alpha1.Kind
	File   string
	root   *yaml.Node
}

// Name answers "HTTPRoute/cart".
func (d *Document) Name() string { return d.Kind.Name + "/" + d.Object.GetName() }

// Errorf answers an error about the field at path, with its line.
func (d *Document) Errorf(path, format string, args ...any) Error {
	return Error{File: d.File, Line: lineOf(d.root, path), Object: d.Name(), Path: path, Message: fmt.Sprintf(format, args...)}
}

// Error is one thing wrong with a file.
type Error struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // from 1
	Object  string `json:"object,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

// Error answers "shop.yaml:12: HTTPRoute/cart: spec.rules[0].matches[1].path.type: ...".
func (e Error) Error() string {
	s := e.File + ":" + strconv.Itoa(e.Line) + ": "
	for _, part := range []string{e.Object, e.Path} {
		if part != "" {
			s += oneLine(part) + ": " // a key of the file may hold a line's end
		}
	}
	return s + oneLine(e.Message)
}

// Errors are all of them.
type Errors []Error

// Error answers a line per error.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Read decodes a file. It answers every object, or errors and no object.
func Read(file string, text []byte) ([]Document, Errors) {
	r := reader{file: file}
	if len(text) > MaxBytes {
		r.fail(1, "", "", "the file has %d bytes: at most %d are read, split it", len(text), MaxBytes)
		return nil, r.errs
	}
	in := yaml.NewDecoder(bytes.NewReader(plainTabs(text)))
	var docs []Document
	for n := 0; ; n++ {
		var node yaml.Node
		err := in.Decode(&node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.syntax(err)
			break
		}
		if len(node.Content) == 0 || node.Content[0].ShortTag() == "!!null" {
			continue // an empty document, as between two separators
		}
		if len(docs) == MaxDocuments {
			r.fail(node.Content[0].Line, "", "", "the file has more than %d documents: split it", MaxDocuments)
			break
		}
		if d, ok := r.document(node.Content[0]); ok {
			docs = append(docs, d)
		}
	}
	r.twice(docs)
	if len(r.errs) > 0 {
		return nil, r.errs
	}
	return docs, nil
}

// reader reads one file.
type reader struct {
	file string
	errs Errors
	lost bool // there was one more than MaxErrors
}

func (r *reader) fail(line int, object, path, format string, args ...any) {
	switch {
	case len(r.errs) < MaxErrors-1:
		r.errs = append(r.errs, Error{File: r.file, Line: max(line, 1), Object: object, Path: path, Message: fmt.Sprintf(format, args...)})
	case !r.lost:
		r.lost = true
		r.errs = append(r.errs, Error{File: r.file, Line: max(line, 1), Message: "there are more errors: correct these first"})
	}
}

// syntax translates "yaml: line 3: did not find expected key".
func (r *reader) syntax(err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if n, what, ok := strings.Cut(rest, ": "); ok {
			line, _ = strconv.Atoi(n)
			text = what
		}
	}
	r.fail(line, "", "", "this is not YAML: %s", text)
}

// document reads one object.
func (r *reader) document(node *yaml.Node) (Document, bool) {
	d := Document{File: r.file, root: node}
	if node.Kind != yaml.MappingNode {
		r.fail(node.Line, "", "", "a document must be an object with apiVersion, kind and metadata, this is %s", describe(node))
		return d, false
	}
	kind, ok := r.kind(node)
	if !ok {
		return d, false
	}
	d.Kind = kind
	d.Object = kind.New()
	w := walk{reader: r, object: kind.Name + "/" + nameOf(node)}
	before := len(r.errs)
	w.check(node, reflect.TypeOf(d.Object).Elem(), "", 0)
	if len(r.errs) > before {
		return d, false
	}
	value, _ := plain(node).(map[string]any)
	delete(value, "status") // see walk.structure
	value["apiVersion"] = kind.APIVersion
	text, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(text, d.Object)
	}
	if err != nil { // the walk is to have found it; this is the net below it
		r.fail(node.Line, w.object, "", "%v", err)
		return d, false
	}
	v1alpha1.Default(d.Object)
	for _, e := range v1alpha1.Validate(d.Object) {
		r.fail(lineOf(node, e.Path), w.object, e.Path, "%s", e.Message)
	}
	return d, len(r.errs) == before
}

// kind reads apiVersion and kind.
func (r *reader) kind(node *yaml.Node) (v1alpha1.Kind, bool) {
	var names []string
	for _, k := range v1alpha1.Kinds() {
		names = append(names, k.Name)
	}
	supported := strings.Join(names, ", ")
	kn, vn := child(node, "kind"), child(node, "apiVersion")
	switch {
	case kn == nil || kn.Kind != yaml.ScalarNode || kn.Value == "":
		r.fail(node.Line, "", "kind", "is missing: write one of %s", supported)
		return v1alpha1.Kind{}, false
	case vn == nil || vn.Kind != yaml.ScalarNode || vn.Value == "":
		r.fail(node.Line, "", "apiVersion", "is missing: a %s has for example apiVersion: %s", kn.Value, exampleVersion(kn.Value))
		return v1alpha1.Kind{}, false
	}
	for _, k := range v1alpha1.Kinds() {
		switch {
		case k.Name != kn.Value:
		case k.APIVersion != vn.Value && !slices.Contains(k.Older, vn.Value):
			r.fail(vn.Line, k.Name+"/"+nameOf(node), "apiVersion", "%q is not known for a %s: write %s", vn.Value, k.Name, k.APIVersion)
			return v1alpha1.Kind{}, false
		default:
			return k, true
		}
	}
	r.fail(kn.Line, "", "kind", "%q is not supported: write one of %s", kn.Value, supported)
	return v1alpha1.Kind{}, false
}

func exampleVersion(kind string) string {
	if k, ok := v1alpha1.FindKind(kind); ok {
		return k.APIVersion
	}
	return v1alpha1.GatewayAPIVersion
}

// twice refuses an object that a file has two of: which one is meant is not for us to say.
func (r *reader) twice(docs []Document) {
	type key struct{ kind, namespace, name string }
	seen := map[key]int{}
	for i := range docs {
		d := &docs[i]
		k := key{d.Kind.Name, d.Object.GetNamespace(), d.Object.GetName()}
		if line := seen[k]; line > 0 {
			r.fail(d.root.Line, d.Name(), "", "is in this file twice, first on line %d: remove one", line)
		}
		seen[k] = d.root.Line
	}
}

// plainTabs makes the tabs between the tokens of JSON blanks: YAML, of which JSON is else a part, minds them.
// Lines and columns stay as they are.
func plainTabs(text []byte) []byte {
	if head := bytes.TrimLeft(text, " \t\r\n"); len(head) == 0 || head[0] != '{' || bytes.IndexByte(text, '\t') < 0 {
		return text
	}
	out, quoted := bytes.Clone(text), false
	for i := 0; i < len(out); i++ {
		switch {
		case quoted && out[i] == '\\':
			i++
		case out[i] == '"':
			quoted = !quoted
		case out[i] == '\t' && !quoted:
			out[i] = ' '
		}
	}
	return out
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}
