package route_test

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
)

// TestEveryFieldHasAStory: each field of each kind is written in some story, be it in one that shows how it is refused.
func TestEveryFieldHasAStory(t *testing.T) {
	told := map[string]bool{} // "HTTPRoute.rules.matches.path"
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
			if f.Name != "resources.yaml" {
				continue
			}
			for text := range strings.SplitSeq(string(f.Data), "\n---\n") {
				var o map[string]any
				if err := yaml.Unmarshal([]byte(text), &o); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				kind, _ := o["kind"].(string)
				mark(told, kind, o["spec"])
			}
		}
	}
	for _, k := range v1alpha1.Kinds() {
		if k.Name == "Service" || k.Name == "MeshConfig" || k.Name == "TrafficPolicy" && !told["TrafficPolicy.targetRefs"] {
			continue // of another suite
		}
		spec, _ := reflect.TypeOf(k.New()).Elem().FieldByName("Spec")
		untold(t, told, k.Name, spec.Type)
	}
}

// mark remembers every field of v.
func mark(told map[string]bool, path string, v any) {
	told[path] = true
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			mark(told, path+"."+k, x)
		}
	case []any:
		for _, x := range v {
			mark(told, path, x)
		}
	}
}

func untold(t *testing.T, told map[string]bool, path string, typ reflect.Type) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	// What is in a part that is refused as a whole needs no story.
	if typ.Kind() != reflect.Struct || strings.HasSuffix(path, ".externalAuth") || strings.Contains(path, ".backendRefs.filters.") && !strings.HasSuffix(path, "HeaderModifier") {
		return
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case name == "" && (f.Anonymous || strings.Contains(options, "inline")):
			untold(t, told, path, f.Type)
		case !told[path+"."+name]:
			t.Errorf("no story has %s.%s", path, name)
		default:
			untold(t, told, path+"."+name, f.Type)
		}
	}
}
