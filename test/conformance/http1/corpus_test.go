package http1

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// load reads the whole corpus.
func load(t testing.TB) []*Case {
	t.Helper()
	files, err := filepath.Glob("corpus/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []*Case
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := Parse(filepath.Base(file), text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, cases...)
	}
	return all
}

var section = regexp.MustCompile(`^(9110|9112|9113|6585) ([0-9]+|[A-C])(\.[0-9]+)*$`)

// TestCorpus: every case says what decides it and what is expected, and there are as many as were promised.
func TestCorpus(t *testing.T) {
	seen := map[string]bool{}
	requests, responses := 0, 0
	for _, c := range load(t) {
		key := c.File + ": " + c.Name
		if seen[key] {
			t.Errorf("%s is there twice", key)
		}
		seen[key] = true
		if !section.MatchString(c.RFC) {
			t.Errorf("%s:%d %s: %q is no section of an RFC", c.File, c.Line, c.Name, c.RFC)
		}
		if len(c.Want) == 0 {
			t.Errorf("%s:%d %s: nothing is expected", c.File, c.Line, c.Name)
		}
		if c.File == "response.txt" {
			responses++
		} else {
			requests++
		}
	}
	t.Logf("%d requests, %d responses", requests, responses)
	if requests+responses < 300 || responses < 60 {
		t.Errorf("%d requests and %d responses; 300 in all, 60 responses were promised", requests, responses)
	}
}

func TestEscapes(t *testing.T) {
	got, err := unescape(`a\r\n\t\0\s\\\x7f\{3*\x41b}`)
	if want := "a\r\n\t\x00 \\\x7fAbAbAb"; got != want || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for _, bad := range []string{`\`, `\q`, `\x1`, `\xzz`, `\{3`, `\{a*b}`} {
		if _, err := unescape(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, bad := range []string{"rfc 9112 1", "== a\nwhat", "== a\n= x", "== a\n  x: y", "== a\n= 200 often", "== a\norigin GET /\n  x", "== a\nh2 ", "== a\nawait x"} {
		if _, err := Parse("f", []byte(bad)); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}
