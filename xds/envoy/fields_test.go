package envoy

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

var update = flag.Bool("update", false, "write docs/reference/xds.md")

// camel is how Go names a field.
func camel(name string) string {
	words := strings.Split(name, "_")
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
		if w[0] >= '0' && w[0] <= '9' && i > 0 { // consecutive_5xx: Consecutive_5Xx
			words[i] = "_" + strings.ToUpper(w[:1]) + strings.ToUpper(w[1:2]) + w[2:]
			if len(w) > 1 && w[1] >= '0' && w[1] <= '9' {
				words[i] = "_" + w
			}
		}
	}
	return strings.Join(words, "")
}

// TestTables holds the tables to Envoy's messages and to the decoder: what they name exists and is read, and what is
// in a field that is run has a table as well.
func TestTables(t *testing.T) {
	sources := ""
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f == "fields.go" || strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		sources += string(b)
	}
	unread := map[string]bool{"default_value": true} // oneofs of one
	for name, table := range fields {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		all := d.(protoreflect.MessageDescriptor).Fields()
		for _, f := range strings.Fields(table.run + " " + table.later) {
			fd := all.ByName(protoreflect.Name(f))
			if fd == nil {
				t.Errorf("%s has no field %s", name, f)
				continue
			}
			if m := fd.Message(); m != nil && !fd.IsMap() && m.FullName().Parent() != "google.protobuf" {
				if _, ok := fields[m.FullName()]; !ok {
					t.Errorf("%s.%s: %s has no table", name, f, m.FullName())
				}
			}
			if !strings.Contains(sources, "Get"+camel(f)+"(") && !strings.Contains(sources, "_"+camel(f)) && !unread[f] {
				t.Errorf("%s.%s: nothing reads it", name, f)
			}
			if _, twice := table.inert[f]; twice {
				t.Errorf("%s.%s: in both lists", name, f)
			}
		}
		for f, why := range table.inert {
			if all.ByName(protoreflect.Name(f)) == nil || why == "" {
				t.Errorf("%s: field %s, reason %q", name, f, why)
			}
		}
	}
}

// TestReference holds docs/reference/xds.md to the tables; -update writes it.
func TestReference(t *testing.T) {
	const path = "../../docs/reference/xds.md"
	var b strings.Builder
	b.WriteString("# Envoy configuration that Tulle runs\n\nGenerated from package `xds/envoy` by `go test ./xds/envoy -update`; do not edit.\n\n" +
		"`tulle proxy --bootstrap FILE` reads an Envoy v3 bootstrap, and over ADS the same messages. Below is every field that is run, and\n" +
		"every field that is accepted without effect, with the reason. **Everything else is refused when it is set**: at start with file, line and\n" +
		"field, over ADS as a NACK with the same sentence. Extensions that are not listed are refused by their type.\n\n" +
		"Fields are Envoy's; so are their defaults. Where less is run than a field can say:\n\n")
	for _, l := range limits {
		fmt.Fprintf(&b, "- %s\n", l)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		table := fields[name]
		fmt.Fprintf(&b, "\n## %s\n\n", name)
		run := strings.Fields(table.run)
		slices.Sort(run)
		for i := range run {
			run[i] = "`" + run[i] + "`"
		}
		if len(run) > 0 {
			fmt.Fprintf(&b, "Run: %s\n", strings.Join(run, ", "))
		} else if len(table.inert) == 0 {
			b.WriteString("Run; it has no field that is.\n")
		}
		if later := strings.Fields(table.later); len(later) > 0 {
			slices.Sort(later)
			fmt.Fprintf(&b, "\nRefused until they are run: `%s`\n", strings.Join(later, "`, `"))
		}
		if len(table.inert) > 0 {
			if len(run) > 0 {
				b.WriteString("\n")
			}
			b.WriteString("Without effect:\n\n")
			for _, f := range slices.Sorted(maps.Keys(table.inert)) {
				fmt.Fprintf(&b, "- `%s`: %s\n", f, table.inert[f])
			}
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != b.String() {
		t.Errorf("%s is not what the tables say (%v); run go test ./xds/envoy -update", path, err)
	}
}
