package urlpath_test

import (
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tulle-mesh/tulle/model/urlpath"
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string][2]string{ // sent, seen
		"/": {"/", "/"}, "/a": {"/a", "/a"}, "/a/": {"/a/", "/a/"}, "/a?b=%2f..": {"/a?b=%2f..", "/a"}, "*": {"*", "*"}, "": {"", ""},
		"/%61dmin": {"/admin", "/admin"}, "/%2e%2E/admin": {"/admin", "/admin"}, "/x/../admin": {"/admin", "/admin"},
		"//admin": {"/admin", "/admin"}, "/a//b///c": {"/a/b/c", "/a/b/c"}, "/a//../b": {"/b", "/b"}, "/../../a": {"/a", "/a"},
		"/a/.": {"/a/", "/a/"}, "/a/..": {"/", "/"}, "/a/b/..": {"/a/", "/a/"}, "/..": {"/", "/"}, "/...": {"/...", "/..."}, "/.a/..b": {"/.a/..b", "/.a/..b"},
		"/a%20b": {"/a%20b", "/a b"}, "/caf%c3%a9": {"/caf%C3%A9", "/café"}, "/café": {"/caf%C3%A9", "/café"}, "/a%40b": {"/a@b", "/a@b"},
		"/100%25": {"/100%25", "/100%"}, "/100%25zz": {"/100%25zz", "/100%zz"}, "/a%3fb?c": {"/a%3Fb?c", "/a?b"}, "/a%23b": {"/a%23b", "/a#b"},
		"/a/%2e?q=/../": {"/a/?q=/../", "/a/"}, "/a|b": {"/a%7Cb", "/a|b"}, "/a//?x": {"/a/?x", "/a/"}, "/a+b": {"/a+b", "/a+b"}, "/50%2520off": {"/50%2520off", "/50%20off"},
	} {
		got, _, fault := urlpath.Normalize(nil, []byte(in))
		if fault != urlpath.None || string(got.Sent) != want[0] || string(got.Seen) != want[1] {
			t.Errorf("%s: sent %q, seen %q (%v), want %q", in, got.Sent, got.Seen, fault, want)
		}
	}
	for in, want := range map[string]urlpath.Fault{
		"/%": urlpath.Escape, "/%4": urlpath.Escape, "/%zz": urlpath.Escape, "/%u0061": urlpath.Escape,
		"/a%2fb": urlpath.Slash, "/a%2Fb": urlpath.Slash, "/a%5cb": urlpath.Slash, "/a\\b": urlpath.Slash, "/a/..%2fb": urlpath.Slash,
		"/%00": urlpath.Control, "/a%0d%0ab": urlpath.Control, "/\x7f": urlpath.Control, "/a%09": urlpath.Control,
		"/..;/admin": urlpath.Parameters, "/admin;x=1": urlpath.Parameters, "/admin%3bx": urlpath.Parameters,
		"/%c0%ae%c0%ae/admin": urlpath.Encoding, "/%c0%afadmin": urlpath.Encoding, "/%ff": urlpath.Encoding, "/\xff": urlpath.Encoding, "/%ed%a0%80": urlpath.Encoding,
		"/%252e%252e/admin": urlpath.Double, "/a%252fb": urlpath.Double, "/a%25252fb": urlpath.Double, "/a%255cb": urlpath.Double, "/a%2500": urlpath.Double, "/%2561dmin": urlpath.Double, "/%25%36%31dmin": urlpath.Double, "/a%2525": urlpath.Double,
		"/a#b": urlpath.Fragment,
	} {
		if got, _, fault := urlpath.Normalize(nil, []byte(in)); fault != want {
			t.Errorf("%s: %q %v, want %v", in, got.Sent, fault, want)
		}
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{"/a%20b": "/a b", "/a b": "/a b", "/admin": "/admin", "/admin/": "/admin/", "/é": "/é"} {
		if got, fault := urlpath.Text(in); fault != urlpath.None || got != want {
			t.Errorf("%s: %q %v", in, got, fault)
		}
	}
	if _, fault := urlpath.Text("/a%2fb"); fault != urlpath.Slash {
		t.Error(fault)
	}
}

func TestNormalizeAllocatesNothing(t *testing.T) {
	buf := make([]byte, 0, 256)
	for _, in := range []string{"/api/v1/items/7?page=2", "/a/%2e%2e/b//c%20d?x"} {
		target := []byte(in)
		if n := testing.AllocsPerRun(100, func() { _, buf, _ = urlpath.Normalize(buf, target) }); n != 0 {
			t.Errorf("%s: %v allocations", in, n)
		}
	}
}

// FuzzNormalize: what was normalized stays as it is; what is sent decodes to what was seen, with the standard library's decoder, which
// shares nothing with ours; and both are what path.Clean makes of the decoded original.
func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/%61", "/a\\..\\b", "//..//", "/%25%32%65", "/caf%c3%a9//x/.", "/a;b", "/a%3Fb?c", "/%C0%AE"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, target []byte) {
		got, _, fault := urlpath.Normalize(nil, target)
		if fault != urlpath.None || len(target) == 0 || target[0] != '/' {
			return
		}
		again, _, fault := urlpath.Normalize(nil, got.Sent)
		if fault != urlpath.None || string(again.Sent) != string(got.Sent) || string(again.Seen) != string(got.Seen) {
			t.Fatalf("%q: %q, then %q %v", target, got.Sent, again.Sent, fault)
		}
		sent, query, _ := strings.Cut(string(got.Sent), "?")
		original, was, _ := strings.Cut(string(target), "?")
		if query != was {
			t.Fatalf("%q: the query became %q", target, query)
		}
		decoded, err := url.PathUnescape(sent)
		if err != nil || decoded != string(got.Seen) || !utf8.ValidString(decoded) {
			t.Fatalf("%q: sent %q means %q (%v), seen %q", target, sent, decoded, err, got.Seen)
		}
		plain, err := url.PathUnescape(original)
		if err != nil {
			t.Fatalf("%q: %v", target, err)
		}
		want := path.Clean(plain)
		if want != "/" && (strings.HasSuffix(plain, "/") || strings.HasSuffix(plain, "/.") || strings.HasSuffix(plain, "/..")) {
			want += "/"
		}
		if decoded != want {
			t.Fatalf("%q: %q, want %q", target, decoded, want)
		}
		if strings.ContainsAny(decoded, ";\\\x00") || strings.Count(sent, "/") != strings.Count(decoded, "/") {
			t.Fatalf("%q: sent %q", target, sent)
		}
	})
}
