package exchange_test

import (
	"bytes"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/proxy/exchange"
)

func TestNormalPath(t *testing.T) {
	for in, want := range map[string]string{
		"/": "/", "/a": "/a", "/a/": "/a/", "/a/.": "/a/", "/a/./b": "/a/b", "/a/..": "/", "/a/../b": "/b", "/a/b/..": "/a/", "/..": "/",
		"/../..//a": "//a", "/a//../b": "/a/b", "/%61": "/a", "/%2e%2E/x": "/x", "/%2f%5C": "/%2f%5C", "/a\\b": "/a/b", "/%7e%2D": "/~-",
		"/a%20b": "/a%20b", "/...": "/...", "/.a/..b": "/.a/..b", "/%252e": "/%252e", "/a/%2e": "/a/", "/a/..%2fb": "/a/..%2fb",
	} {
		if got, ok := exchange.NormalPath([]byte(in)); !ok || string(got) != want {
			t.Errorf("%s: %s %v, want %s", in, got, ok, want)
		}
	}
	for _, in := range []string{"/%", "/%4", "/%zz", "/%00"} {
		if got, ok := exchange.NormalPath([]byte(in)); ok {
			t.Errorf("%s: %s", in, got)
		}
	}
	if got := string(exchange.UnescapeSlashes([]byte("/a%2Fb%5cc%2"))); got != "/a/b\\c%2" {
		t.Error(got)
	}
	if got := string(exchange.MergeSlashes([]byte("//a///b//"))); got != "/a/b/" {
		t.Error(got)
	}
}

// What is normal stays so, has no dot segment, and means what package path makes of the decoded path.
func FuzzNormalPath(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/%61", "/a\\..\\b", "//..//", "/%25%32%65"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) == 0 || p[0] != '/' || bytes.ContainsAny(p, "?#") {
			return
		}
		got, ok := exchange.NormalPath(p)
		if !ok {
			return
		}
		again, ok := exchange.NormalPath(got)
		if !ok || !bytes.Equal(again, got) {
			t.Fatalf("%q: %q, then %q %v", p, got, again, ok)
		}
		for _, s := range strings.Split(string(got), "/") {
			if s == "." || s == ".." {
				t.Fatalf("%q: %q", p, got)
			}
		}
		if bytes.Contains(got, []byte("//")) || bytes.Contains(p, []byte("//")) || bytes.ContainsAny(p, "\\") || bytes.Contains(bytes.ToLower(p), []byte("%2f")) {
			return // package path merges slashes
		}
		decoded, err := url.PathUnescape(string(p))
		if err != nil {
			return
		}
		want := path.Clean(decoded)
		mine, err := url.PathUnescape(string(got))
		if err != nil || path.Clean(mine) != want {
			t.Fatalf("%q: %q, want %q", p, mine, want)
		}
	})
}

func TestWithoutPort(t *testing.T) {
	for in, want := range map[string]string{"a:80": "a", "a": "a", "[::1]:8": "[::1]", "[::1]": "[::1]", "a:": "a", "": "", "::1": "::1"} {
		if got := string(exchange.WithoutPort([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
