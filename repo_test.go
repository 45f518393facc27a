package tulle

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestOnePackageComment: each package says once what it is.
func TestOnePackageComment(t *testing.T) {
	comments := map[string][]string{}
	for path, text := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		dir := filepath.Dir(path)
		comments[dir] = append(comments[dir], nil...)
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		generated := strings.HasPrefix(text, "// Code generated")
		if f.Doc != nil && !generated {
			comments[dir] = append(comments[dir], path)
		}
	}
	for dir, files := range comments {
		if len(files) != 1 {
			t.Errorf("package %s has %d package comments %v, want one", dir, len(files), files)
		}
	}
}

// TestNoSleeps: a test waits for a condition or in virtual time.
func TestNoSleeps(t *testing.T) {
	for path, text := range goFiles(t) {
		if !strings.HasSuffix(path, "_test.go") || (path == "repo_test.go" || path == "layers_test.go") || strings.Contains(text, `"testing/synctest"`) {
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			if strings.Contains(line, "time.Sleep(") && !strings.Contains(line, "// poll") {
				t.Errorf("%s:%d: time.Sleep in a test; wait for a condition, or say `// poll` in a loop that has a deadline", path, i+1)
			}
			if strings.Contains(line, "t.Skip(") || strings.Contains(line, "t.SkipNow(") || strings.Contains(line, "t.Skipf(") {
				t.Errorf("%s:%d: a skipped test looks like a pass; fail and say what is missing", path, i+1)
			}
		}
	}
}

var (
	backticked = regexp.MustCompile("`([a-z][a-z0-9_]*(?:/[a-z0-9_.]+)+)/?`")
	// elsewhere are paths that documents name and that are not in this repository.
	elsewhere = []string{"net/http", "crypto/tls", "testing/synctest", "log/slog", "net/netip", "x/net", "go/parser", "bin/tulle", "bin/e2e.test", "tulle/1"}
)

// TestDocumentsNameWhatExists: a path in backticks in ARCHITECTURE.md, CONTRIBUTING.md, README.md or the walks is there.
func TestDocumentsNameWhatExists(t *testing.T) {
	docs, err := filepath.Glob("docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	docs = append(docs, "ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "STYLE.md")
	for _, doc := range docs {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range backticked.FindAllStringSubmatch(string(b), -1) {
			path := m[1]
			known := false
			for _, e := range elsewhere {
				known = known || under(path, e)
			}
			if !known && !exists(path) && !exists(path+".go") {
				t.Errorf("%s names `%s`, which does not exist", doc, path)
			}
		}
	}
}

// TestLicense: the licence is whole.
func TestLicense(t *testing.T) {
	b, err := os.ReadFile("LICENSE")
	if err != nil || !strings.Contains(string(b), "Apache License") || !strings.Contains(string(b), "END OF TERMS AND CONDITIONS") {
		t.Errorf("LICENSE is not the Apache License 2.0: %v", err)
	}
}
