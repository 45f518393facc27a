//go:build conformance

// Package h2 points h2spec at the proxy's HTTP/2: as a server, on a plain and on a TLS listener, and with h2specd as a
// client of servers that break the rules. All numbers are asserted exactly.
package h2

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// TestMain is also the program that h2specd calls for each case.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "ask" {
		ask(os.Args[2], os.Args[3])
		return
	}
	os.Exit(m.Run())
}

// total is how many cases h2spec has with --strict.
const total = 147

func TestServer(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // what is broken off is the client's affair
		fmt.Fprint(w, "a body of some length, for windows of one byte")
	}))
	defer origin.Close()
	ca := subject.NewCA(t)
	plain, secure, auto := subject.Port(t), subject.Port(t), subject.Port(t)
	cert := ca.Issue(t, "localhost")
	subject.Start(t, subject.Bootstrap{
		Clusters: []subject.Cluster{{Name: "origin", Port: origin.Listener.Addr().(*net.TCPAddr).Port}},
		Listeners: []subject.Listener{
			{Port: plain, Cluster: "origin", Codec: "HTTP2"},
			{Port: auto, Cluster: "origin"},
			{Port: secure, Cluster: "origin", TLS: &subject.ServerTLS{Cert: cert.Cert, Key: cert.Key}},
		},
	})
	for _, v := range []struct {
		name   string
		args   []string
		failed []string
	}{
		{"plain", []string{"-p", strconv.Itoa(plain)}, nil},
		{"tls", []string{"-p", strconv.Itoa(secure), "--tls", "--insecure"}, nil},
		// Where HTTP/1 is spoken too, what does not begin like HTTP/2 gets an HTTP/1 answer, 400, before the end.
		{"auto", []string{"-p", strconv.Itoa(auto)}, []string{"3.5 2: Sends invalid connection preface"}},
	} {
		t.Run(v.name, func(t *testing.T) {
			out := run(t, append([]string{subject.Binary(t, "h2spec"), "-h", "127.0.0.1", "--strict"}, v.args...)...)
			want := fmt.Sprintf("%d tests, %d passed, 0 skipped, %d failed", total, total-len(v.failed), len(v.failed))
			if failed := failedCases(out); !strings.Contains(out, want) || !slices.Equal(failed, v.failed) {
				t.Errorf("want %q and failures %q, got %q:\n%s", want, v.failed, failed, failures(out))
			}
		})
	}
}

// run answers all that a program writes until it ends, two minutes at most.
func run(t *testing.T, args ...string) string {
	t.Helper()
	p := subject.Run(t, args[0], nil, args...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if _, err := p.End(ctx); err != nil {
		t.Error(err)
	}
	return p.Output()
}

var summary = regexp.MustCompile(`\d+ tests, \d+ passed, \d+ skipped, \d+ failed`)

// failures answers the part of a report that says what failed, and its summary.
func failures(out string) string {
	at := strings.Index(out, "Failures:")
	if at < 0 {
		at = max(0, len(out)-3000)
	}
	return out[at:] + "\n" + summary.FindString(out)
}

// clientTotal is how many cases h2specd has.
const clientTotal = 57

// inapplicable are cases of h2specd that a client may fail, and why.
var inapplicable = map[string]string{}

// TestClient lets h2specd be the server: one port for each of its cases.
func TestClient(t *testing.T) {
	first := ports(t, clientTotal)
	listener := subject.Port(t)
	boot := subject.Bootstrap{Listeners: []subject.Listener{{Port: listener, ClusterHeader: "x-cluster"}}}
	for i := range clientTotal {
		boot.Clusters = append(boot.Clusters, subject.Cluster{Name: fmt.Sprintf("c%d", first+i), Port: first + i, HTTP2: true})
	}
	subject.Start(t, boot)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// It says of every port that it has closed that it cannot accept there, again and again, and would drown its report.
	quiet := `"$0" "$@" 2>&1 | grep -v "use of closed network connection"`
	out := run(t, "sh", "-c", quiet, subject.Binary(t, "h2specd"), "-h", "127.0.0.1", "--strict", "-f", strconv.Itoa(first), "-e", fmt.Sprintf("%s ask 127.0.0.1:%d", self, listener))
	failed := failedCases(out)
	for _, name := range failed {
		if inapplicable[name] == "" {
			t.Errorf("failed: %s", name)
		}
	}
	for name, why := range inapplicable {
		if !slices.Contains(failed, name) {
			t.Errorf("%s passes; it was said that it cannot: %s", name, why)
		}
	}
	passed := clientTotal - len(inapplicable)
	if want := fmt.Sprintf("%d tests, %d passed, 0 skipped, %d failed", clientTotal, passed, len(inapplicable)); !strings.Contains(out, want) {
		t.Errorf("want %q, got:\n%s", want, failures(out))
	}
}

var failedCase = regexp.MustCompile(`× (\d+: .*)`)

// failedCases answers the names of what failed, each with its section: "5.1 3: idle: ...".
func failedCases(out string) (names []string) {
	section := ""
	_, list, _ := strings.Cut(out, "Failures:")
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(ansi.ReplaceAllString(line, ""))
		if m := sectionLine.FindStringSubmatch(line); m != nil {
			section = m[1]
		}
		if m := failedCase.FindStringSubmatch(line); m != nil {
			names = append(names, section+" "+m[1])
		}
	}
	return names
}

var (
	ansi        = regexp.MustCompile("\x1b\\[[0-9;]*m")
	sectionLine = regexp.MustCompile(`^(\d[\d.]*)\. `)
)

// ports answers the first of n free ports in a row. It looks below those that the kernel gives to outgoing connections,
// of which a row can be hard to find.
func ports(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		first, ok := 10000+rand.IntN(20000), true
		for i := 0; i < n && ok; i++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+i))
			if ok = err == nil; ok {
				l.Close()
			}
		}
		if ok {
			return first
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

// ask sends one request through the proxy to the port in a URL of h2specd, and ignores what comes back: h2specd sees it.
func ask(proxy, url string) {
	port := strings.Trim(url[strings.LastIndex(url, ":"):], ":/")
	req, err := http.NewRequest("GET", "http://"+proxy+"/", nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	req.Header.Set("x-cluster", "c"+port)
	client := http.Client{Timeout: 700 * time.Millisecond} // h2specd has 3 s for a case, ends included
	resp, err := client.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}
