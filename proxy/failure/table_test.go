package failure

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/reference/failures.md")

func TestTableIsComplete(t *testing.T) {
	snake := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	labels := map[string]Reason{}
	for _, r := range All() {
		e := table[r]
		if !snake.MatchString(e.label) {
			t.Errorf("reason %d: label %q is not snake_case", r, e.label)
		}
		if was, twice := labels[e.label]; twice {
			t.Errorf("label %q: reasons %d and %d", e.label, was, r)
		}
		labels[e.label] = r
		if e.status < 400 || e.status > 599 {
			t.Errorf("%s: HTTP status %d is no failure", r, e.status)
		}
		if e.grpc < 1 || e.grpc > 16 {
			t.Errorf("%s: gRPC status %d is no failure", r, e.grpc)
		}
		if e.log == "" || e.hint == "" {
			t.Errorf("%s: log text or hint is missing", r)
		}
		if strings.Contains(e.log+e.hint, "\n") {
			t.Errorf("%s: log text or hint has more than one line", r)
		}
		if e.side != Us && e.side != Upstream && r.Retryable() {
			t.Errorf("%s: what the downstream does wrong is not tried again", r)
		}
		if back, ok := ParseReason(r.Label()); !ok || back != r {
			t.Errorf("ParseReason(%q) = %v, %v", r.Label(), back, ok)
		}
	}
	if len(labels) != int(reasonCount)-1 {
		t.Errorf("%d labels for %d reasons", len(labels), reasonCount-1)
	}
}

func TestUntouchedIsRetryable(t *testing.T) {
	for _, r := range All() {
		if r.Untouched() && !r.Retryable() {
			t.Errorf("%s is untouched but not retryable", r)
		}
	}
	for _, r := range []Reason{ConnectFailed, RefusedStream} {
		if !r.Untouched() {
			t.Errorf("%s: the upstream never saw the request", r)
		}
	}
	if UpstreamReset.Untouched() || RequestTimeout.Retryable() {
		t.Error("a request that may have been acted on counts as untouched, or one out of time as retryable")
	}
}

func TestUnknownReason(t *testing.T) {
	if got := Reason(200).Label(); got != Internal.Label() {
		t.Errorf("a reason outside the table says %q", got)
	}
	if _, ok := ParseReason("no_such_label"); ok {
		t.Error("a label outside the table was understood")
	}
	if r, ok := ParseReason(""); !ok || r != None {
		t.Errorf("the empty label is None, not %v", r)
	}
}

func TestFailureError(t *testing.T) {
	f := &Failure{Reason: ConnectFailed, Cause: os.ErrDeadlineExceeded}
	if got := f.Error(); !strings.HasPrefix(got, "connect_failed: ") || f.Unwrap() != os.ErrDeadlineExceeded {
		t.Errorf("got %q", got)
	}
}

// TestReference holds docs/reference/failures.md to the table; -update writes it.
func TestReference(t *testing.T) {
	const path = "../../docs/reference/failures.md"
	var b strings.Builder
	b.WriteString("# Failures\n\nGenerated from package `proxy/failure` by `go test ./proxy/failure -update`; do not edit.\n\n" +
		"Every answer that a proxy makes itself carries `tulle-reason: <reason>`; metrics, access log and `tulle stat` use the same words.\n" +
		"*Side* is who caused it. *Tried again*: `always` if the upstream surely took no notice of the request, `idempotent` if only requests\n" +
		"that may be repeated (RFC 9110 section 9.2.2) are sent again.\n\n| reason | HTTP | gRPC | side | tried again |\n|---|---|---|---|---|\n")
	for _, r := range All() {
		again := "no"
		if r.Untouched() {
			again = "always"
		} else if r.Retryable() {
			again = "idempotent"
		}
		fmt.Fprintf(&b, "| [`%s`](#%s) | %d | %d | %s | %s |\n", r, r, r.Status(), r.GRPC(), r.Side(), again)
	}
	for _, r := range All() {
		log := strings.ToUpper(r.Log()[:1]) + r.Log()[1:]
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\nWhat to do: %s.\n", r, log, r.Hint())
	}
	if *update {
		if err := os.MkdirAll("../../docs/reference", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != b.String() {
		t.Errorf("%s is not what the table says (%v); run go test ./proxy/failure -update", path, err)
	}
	for _, r := range All() {
		if _, anchor, _ := strings.Cut(r.Doc(), "#"); !strings.Contains(string(got), "\n## "+anchor+"\n") {
			t.Errorf("%s: no anchor %q in the page", r, anchor)
		}
	}
}
