package tulle

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tulle-mesh/tulle"

// impure is what a pure package does not import.
var impure = []string{"log", "log/slog", "net", "net/http", "os", "os/exec", "sync", "sync/atomic", "syscall"}

// rules is what layers.txt says.
type rules struct {
	allow map[string][]string // directory: the directories it may import
	pure  []string            // directories without I/O, locks and clock
	only  map[string][]string // foreign import prefix: the directories that may import it
}

// TestLayers holds every non-test file to layers.txt. It parses the files instead of asking the go command:
// it then sees the files of every operating system, and the test cache knows what the verdict depends on.
func TestLayers(t *testing.T) {
	r := readRules(t)
	seen := 0
	for path := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		seen++
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		if _, ok := r.home(dir); !ok {
			t.Errorf("%s: no rule covers directory %s; add a line to layers.txt", path, dir)
		}
		for _, spec := range f.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			if why := r.refuse(dir, imp); why != "" {
				t.Errorf("%s imports %q: %s", path, imp, why)
			}
		}
	}
	if seen == 0 {
		t.Fatal("no Go file was looked at")
	}
}

// TestPureNoClock: a pure package takes the time as an argument.
func TestPureNoClock(t *testing.T) {
	r := readRules(t)
	for path, text := range goFiles(t) {
		dir := filepath.ToSlash(filepath.Dir(path))
		if strings.HasSuffix(path, "_test.go") || !slices.ContainsFunc(r.pure, func(p string) bool { return under(dir, p) }) {
			continue
		}
		for _, banned := range []string{"time.Now(", "time.Sleep(", "time.After(", "time.NewTimer(", "time.Since("} {
			if strings.Contains(text, banned) {
				t.Errorf("%s: %s) in a pure package; take the time as an argument", path, banned)
			}
		}
	}
}

// refuse says why dir may not import imp, or "".
func (r rules) refuse(dir, imp string) string {
	if in, ok := strings.CutPrefix(imp, module+"/"); ok {
		home, _ := r.home(dir)
		for _, a := range append(r.allow[home], home) {
			if a == "*" || under(in, a) {
				return ""
			}
		}
		return home + " may import only: " + strings.Join(r.allow[home], " ")
	}
	for ext, owners := range r.only {
		free := []string{"test", "bench", "sim", "tools", "examples"}
		if under(imp, ext) && !slices.ContainsFunc(append(free, owners...), func(o string) bool { return under(dir, o) }) {
			return "only " + strings.Join(owners, ", ") + " may import " + ext
		}
	}
	for _, p := range r.pure {
		if under(dir, p) && slices.Contains(impure, imp) {
			return p + " is pure: no I/O, no locks, no clock"
		}
	}
	return ""
}

// home answers the longest rule that covers dir.
func (r rules) home(dir string) (best string, ok bool) {
	for k := range r.allow {
		if under(dir, k) && len(k) >= len(best) {
			best, ok = k, true
		}
	}
	return best, ok
}

func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func readRules(t *testing.T) rules {
	t.Helper()
	b, err := os.ReadFile("layers.txt")
	if err != nil {
		t.Fatal(err)
	}
	r := rules{allow: map[string][]string{}, only: map[string][]string{}}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(strings.Replace(line, ":", " : ", 1))
		switch {
		case len(f) == 0:
		case f[0] == "pure":
			r.pure = append(r.pure, f[1:]...)
		case f[0] == "only" && len(f) > 3:
			for _, ext := range f[3:] {
				r.only[ext] = append(r.only[ext], f[1])
			}
		case len(f) >= 2 && f[1] == ":":
			r.allow[f[0]] = f[2:]
		default:
			t.Fatalf("layers.txt: cannot read %q", line)
		}
	}
	return r
}

// goFiles answers the path and text of every Go file of the repository.
func goFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || len(d.Name()) > 1 && d.Name()[0] == '.'):
			return filepath.SkipDir
		case d.IsDir() && path != "." && exists(filepath.Join(path, "go.mod")):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		b, err := os.ReadFile(path)
		files[filepath.ToSlash(path)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }
