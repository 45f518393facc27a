package v1alpha1_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

var update = flag.Bool("update", false, "write docs/reference/resources.md anew")

const referenceFile = "../../docs/reference/resources.md"

// TestReference holds docs/reference/resources.md to the types: every field of every kind has a line in it. What Tulle's own
// fields say is in their comments; the words for others' are in testdata/words.txt.
func TestReference(t *testing.T) {
	r := &reference{said: comments(t), words: words(t), used: map[string]bool{}}
	r.line("# Resources\n")
	r.line("What users write, field by field. This page is generated from the types (`go test ./api/v1alpha1 -update`); how requests are treated")
	r.line("with it, and why defaults are what they are, is in [traffic.md](traffic.md). Every kind has `apiVersion`, `kind` and `metadata` with `name`,")
	r.line("`namespace` (default `default`), `labels` and `annotations`. A field that is not known, or has a value that means nothing, is refused")
	r.line("with file and line.")
	for _, k := range v1alpha1.Kinds() {
		typ := reflect.TypeOf(k.New()).Elem()
		r.line("\n## %s\n", k.Name)
		r.line("`%s`%s. %s\n", k.APIVersion, olderText(k), r.word(t, typ, "", k.Name))
		r.line("| field | type | what it says |\n|---|---|---|")
		spec, ok := typ.FieldByName("Spec")
		if !ok {
			t.Fatalf("%s has no spec", k.Name)
		}
		r.seen = map[reflect.Type]string{}
		r.fields(t, spec.Type, "")
	}
	for key := range r.words {
		if !r.used[key] {
			t.Errorf("testdata/words.txt: %s is no field any more", key)
		}
	}
	if *update {
		if err := os.WriteFile(referenceFile, r.out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(referenceFile); err != nil || !bytes.Equal(have, r.out.Bytes()) {
		t.Errorf("%s is not what the types say (%v); run go test ./api/v1alpha1 -update", referenceFile, err)
	}
}

func olderText(k v1alpha1.Kind) string {
	if len(k.Older) == 0 {
		return ""
	}
	return " (also `" + strings.Join(k.Older, "`, `") + "`)"
}

// reference is the page while it is written.
type reference struct {
	out   bytes.Buffer
	said  map[string]string // by "Type.Field" and "Type": comments of package v1alpha1
	words map[string]string // by "Type.field" (JSON) and "Type": of other packages
	used  map[string]bool
	seen  map[reflect.Type]string // where in this kind a structure is described
}

func (r *reference) line(format string, args ...any) { fmt.Fprintf(&r.out, format+"\n", args...) }

// word answers what is said about a field of a structure, or about the structure itself.
func (r *reference) word(t *testing.T, of reflect.Type, goName, jsonName string) string {
	own, other := of.Name()+"."+goName, of.Name()+"."+jsonName
	if goName == "" {
		own, other = of.Name(), of.Name()
	}
	r.used[other] = true
	if w, ok := r.words[other]; ok {
		return w
	}
	if w := r.said[own]; w != "" && strings.HasSuffix(of.PkgPath(), "api/v1alpha1") {
		return w
	}
	t.Errorf("nothing is said about %s; write a comment, or a line in testdata/words.txt for a type of others", other)
	return ""
}

func (r *reference) fields(t *testing.T, typ reflect.Type, path string) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" && (f.Anonymous || strings.Contains(options, "inline")) {
			r.fields(t, f.Type, path)
			continue
		}
		at := name
		if path != "" {
			at = path + "." + name
		}
		elem, label := described(f.Type)
		if strings.HasSuffix(label, "list") {
			at += "[]"
		}
		text := r.word(t, typ, f.Name, name)
		if elem.Kind() == reflect.Struct && label != "text" && label != "duration" && name != "externalAuth" && name != "defaults" {
			if first, ok := r.seen[elem]; ok {
				r.line("| `%s` | %s | %s Fields as of `%s`. |", at, label, text, first)
				continue
			}
			r.seen[elem] = at
			r.line("| `%s` | %s | %s |", at, label, text)
			r.fields(t, elem, at)
			continue
		}
		r.line("| `%s` | %s | %s |", at, label, text)
	}
}

// described answers what a field holds, and what to call that.
func described(t reflect.Type) (elem reflect.Type, label string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case strings.HasSuffix(t.Name(), "Duration"):
		return t, "duration"
	case t.Name() == "IntOrString":
		return t, "text"
	}
	switch t.Kind() {
	case reflect.Slice:
		elem, label = described(t.Elem())
		if label == "object" {
			label = ""
		} else {
			label += " "
		}
		return elem, label + "list"
	case reflect.Map:
		return t, "map of texts"
	case reflect.Struct:
		return t, "object"
	case reflect.Bool:
		return t, "true or false"
	case reflect.String:
		return t, "text"
	}
	return t, "number"
}

// comments answers the comments of the package's types and their fields.
func comments(t *testing.T) map[string]string {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			g, ok := n.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				return true
			}
			for _, spec := range g.Specs {
				typ := spec.(*ast.TypeSpec)
				out[typ.Name.Name] = flat(g.Doc)
				s, ok := typ.Type.(*ast.StructType)
				if !ok {
					continue
				}
				before := ""
				for _, field := range s.Fields.List {
					text := flat(field.Doc)
					if text == "" {
						text = flat(field.Comment)
					}
					for _, id := range field.Names {
						if text == "" && strings.Contains(before, id.Name) { // "Min and Max are ..."
							text = before
						}
						out[typ.Name.Name+"."+id.Name] = text
					}
					before = text
				}
			}
			return true
		})
	}
	return out
}

func flat(c *ast.CommentGroup) string {
	if c == nil {
		return ""
	}
	text := strings.Join(strings.Fields(c.Text()), " ")
	if text != "" && !strings.HasSuffix(text, ".") {
		text += "."
	}
	return strings.ReplaceAll(text, "|", `\|`)
}

// words reads "Type.field what it says", a line each.
func words(t *testing.T) map[string]string {
	text, err := os.ReadFile("testdata/words.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, what, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		if _, twice := out[key]; twice {
			t.Errorf("testdata/words.txt: %s is there twice", key)
		}
		out[key] = strings.ReplaceAll(what, "|", `\|`)
	}
	return out
}
