package route_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"

	"github.com/tulle-mesh/tulle/api/decode"
	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

// TestEveryFieldIsChecked: for each field of each kind a value of the wrong type, a value out of bounds and a field beside it that
// is not known give errors of one line that name file, line and field. The fields are those of the types, the objects that are
// spoiled are those of the stories; a field that no valid object of a story has is told.
func TestEveryFieldIsChecked(t *testing.T) {
	s := spoiler{T: t, done: map[string]bool{}}
	for _, text := range objects(t) {
		var root yaml.Node
		if err := yaml.Unmarshal([]byte(text), &root); err != nil || len(root.Content) == 0 {
			continue // a story of what is no YAML
		}
		kind, ok := v1alpha1.FindKind(s.scalar(&root, "kind"))
		if _, errs := decode.Read("x.yaml", []byte(text)); !ok || len(errs) > 0 {
			continue // a story of what is refused
		}
		spec, _ := reflect.TypeOf(kind.New()).Elem().FieldByName("Spec")
		s.root = &root
		if n := at(root.Content[0], "spec"); n != nil {
			s.walk(kind.Name, n, spec.Type, []string{"spec"})
		}
	}
	for _, k := range v1alpha1.Kinds() {
		spec, _ := reflect.TypeOf(k.New()).Elem().FieldByName("Spec")
		s.missing(k.Name+".spec", spec.Type)
	}
}

// objects answers every object of the stories, and of the kinds that stories have no place for.
func objects(t *testing.T) (out []string) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			if f.Name == "resources.yaml" || f.Name == "valid.yaml" {
				out = append(out, strings.Split(string(f.Data), "\n---\n")...)
			}
		}
	}
	// What a policy says about a service the mesh may have as its default.
	for _, text := range out {
		var o map[string]any
		if yaml.Unmarshal([]byte(text), &o) != nil || o["kind"] != "TrafficPolicy" {
			continue
		}
		if spec, ok := o["spec"].(map[string]any); ok {
			delete(spec, "targetRefs")
			for part, v := range spec {
				text, err := yaml.Marshal(map[string]any{"apiVersion": o["apiVersion"], "kind": "MeshConfig", "metadata": map[string]any{"name": "mesh"},
					"spec": map[string]any{"defaults": map[string]any{part: v}}})
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, string(text))
			}
		}
	}
	return append(out, others...)
}

// others are objects of kinds that have no stories.
var others = []string{`
apiVersion: v1
kind: Service
metadata: {name: cart}
spec:
  type: ClusterIP
  selector: {service: cart}
  ports: [{name: web, protocol: TCP, appProtocol: http, port: 80, targetPort: 8080}, {name: raw, port: 81, targetPort: raw}]
`, `
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {trustDomain: tulle.local, virtualIPv4: 198.18.0.0/15, virtualIPv6: "` + v1alpha1.DefaultVirtualIPv6 + `", mtls: {mode: Strict}, trustedHops: 1}
`}

type spoiler struct {
	*testing.T
	root *yaml.Node
	done map[string]bool // "HTTPRoute.spec.rules.matches"
}

// free are texts in which every printable text of any length means something, or is bounded where the whole is.
var free = regexp.MustCompile(`\.expression$|\.body$|\.queryParams\.value$|\.(hash|sticky)\.query$|\.tcp\.(send|receive)$`)

func (s *spoiler) scalar(root *yaml.Node, key string) string {
	if n := at(root.Content[0], key); n != nil {
		return n.Value
	}
	return ""
}

// walk spoils a node and what is within, each field once.
func (s *spoiler) walk(name string, n *yaml.Node, typ reflect.Type, path []string) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	full := name + "." + fieldPath(path)
	first := !s.done[full]
	s.done[full] = true
	switch {
	case n.Kind == yaml.SequenceNode && typ.Kind() == reflect.Slice:
		if first {
			s.spoil(full, n, path, "text for a list", yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "x"})
		}
		for i, c := range n.Content {
			s.walk(name, c, typ.Elem(), append(slices.Clone(path), fmt.Sprint(i)))
		}
	case n.Kind == yaml.MappingNode:
		if first {
			s.spoil(full, n, path, "text for an object", yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "x"})
		}
		known := map[string]reflect.Type{}
		if typ.Kind() == reflect.Struct {
			jsonFields(typ, known)
			if first {
				more := *n
				more.Content = append(slices.Clone(n.Content), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "zzzUnknown"}, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: "1"})
				s.spoil(full, n, append(slices.Clone(path), "zzzUnknown"), "an unknown field", more)
			}
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if ft, ok := known[key]; ok {
				s.walk(name, n.Content[i+1], ft, append(slices.Clone(path), key))
			}
		}
	case first:
		s.spoilScalar(full, n, typ, path)
	}
}

func (s *spoiler) spoilScalar(full string, n *yaml.Node, typ reflect.Type, path []string) {
	s.spoil(full, n, path, "a list for a value", yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!int", Value: "1"}}})
	s.spoil(full, n, path, "an object for a value", yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: "a"}, {Kind: yaml.ScalarNode, Value: "b"}}})
	say := func(what, tag, value string) {
		s.spoil(full, n, path, what+" "+value[:min(len(value), 30)], yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value})
	}
	switch typ.Kind() {
	case reflect.String:
		if !reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()) {
			say("a number for text", "!!int", "5")
			say("a truth value for text", "!!bool", "true")
		}
		if !free.MatchString(full) {
			say("control bytes", "!!str", "a\r\nb: \x01")
		}
		say("a text too long", "!!str", strings.Repeat("ab", 2500))
	case reflect.Bool:
		say("text for a truth value", "!!str", "yes please")
		say("a number for a truth value", "!!int", "1")
	case reflect.Struct: // IntOrString and the like
	case reflect.Float64:
		say("text for a number", "!!str", "many")
		say("out of bounds", "!!float", "-1.5")
		say("out of bounds", "!!float", "1e30")
	default:
		say("text for a number", "!!str", "many")
		say("half a number", "!!float", "1.5")
		say("out of bounds", "!!int", "-1")
		if !wide.MatchString(full) {
			say("out of bounds", "!!int", "2147483647")
		}
		say("out of bounds", "!!int", "9223372036854775808")
	}
}

// wide are fields that may be as large as 32 bits hold, or larger.
var wide = regexp.MustCompile(`\.(denominator|bytesPerSecond|maxAge|maxRequests|maxStreams)$|\.breakers\.\w+$|\.rateLimits\.(requests|burst|bytes|connections)$|\.capacity\.\w+$`)

// spoil puts bad in the place of n, and expects to be told where it is.
func (s *spoiler) spoil(full string, n *yaml.Node, path []string, what string, bad yaml.Node) {
	s.Helper()
	was := *n
	bad.Style = 0
	*n = bad
	text, err := yaml.Marshal(plainly(s.root))
	*n = was
	if err != nil {
		s.Fatal(err)
	}
	var back yaml.Node
	if err := yaml.Unmarshal(text, &back); err != nil {
		s.Fatal(err)
	}
	line := lineOf(back.Content[0], path)
	_, errs := decode.Read("x.yaml", text)
	if len(errs) == 0 {
		s.Errorf("%s: %s passes", full, what)
		return
	}
	want := jsonPath(path)
	found := false
	for _, e := range errs {
		if strings.ContainsAny(e.Error(), "\r\n\x01") {
			s.Errorf("%s: %s: not one line: %q", full, what, e.Error())
		}
		if len(e.Error()) > 600 {
			s.Errorf("%s: %s: said in %d bytes", full, what, len(e.Error()))
		}
		// The field (its value may begin on the next line), or what is around it by a step where its parts belong together.
		parent := want[:max(0, strings.LastIndexAny(want, ".["))]
		if e.Path == want && e.Line == line || (e.Line == line || e.Line == line+1) && strings.HasPrefix(e.Path, want) || e.Path == parent && e.Line <= line {
			found = true
		}
	}
	if !found {
		s.Errorf("%s: %s: want %s on line %d, got %v", full, what, want, line, errs)
	}
}

// plainly answers a copy in block style, each field in a line of its own.
func plainly(n *yaml.Node) *yaml.Node {
	out := *n
	out.Style, out.Content = 0, nil
	if out.Kind == yaml.ScalarNode && out.Tag == "!!str" {
		out.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		out.Content = append(out.Content, plainly(c))
	}
	return &out
}

// lineOf answers the line of a field's key, or of a list's entry.
func lineOf(n *yaml.Node, path []string) (line int) {
	for _, step := range path {
		switch n.Kind {
		case yaml.SequenceNode:
			var i int
			fmt.Sscan(step, &i)
			n = n.Content[i]
			line = n.Line
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					line, n = n.Content[i].Line, n.Content[i+1]
					break
				}
			}
		}
	}
	return line
}

func at(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// fieldPath is a path without the places in lists.
func fieldPath(path []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(path), func(s string) bool { return s[0] >= '0' && s[0] <= '9' }), ".")
}

func jsonPath(path []string) string {
	out := ""
	for _, s := range path {
		if s[0] >= '0' && s[0] <= '9' {
			out += "[" + s + "]"
		} else {
			out += "." + s
		}
	}
	return strings.TrimPrefix(out, ".")
}

// jsonFields gathers the fields of a structure by their names in JSON.
func jsonFields(typ reflect.Type, out map[string]reflect.Type) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case name == "" && (f.Anonymous || strings.Contains(options, "inline")):
			jsonFields(f.Type, out)
		default:
			out[name] = f.Type
		}
	}
}

// refused are fields that no valid object has: TestEveryFieldHasAStory finds the story of their refusal. Defaults of the mesh are
// those parts that are about no service, and their fields are spoiled as TrafficPolicy's.
var refused = regexp.MustCompile(`\.useDefaultGateways$|Route\.spec\.hostnames$|\.externalAuth$|\.backendRefs\.filters\.(requestRedirect|requestMirror|urlRewrite|cors|extensionRef)$|` +
	`^MeshConfig\.spec\.defaults\.(hash|fallback|healthChecks|sticky|session|priority|rateLimits|rollout)$`)

// missing tells the fields that were not spoiled.
func (s *spoiler) missing(path string, typ reflect.Type) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return
	}
	known := map[string]reflect.Type{}
	jsonFields(typ, known)
	for name, ft := range known {
		if refused.MatchString(path + "." + name) {
			continue
		}
		if !s.done[path+"."+name] {
			s.Errorf("no valid object of a story has %s.%s", path, name)
			continue
		}
		s.missing(path+"."+name, ft)
	}
}
