//go:build e2e

package security

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// row is one hostile input. try answers what became of it; that has to be one of want. Where nothing of it may reach the
// program, hidden says so.
type row struct {
	name   string
	try    func(m *mesh) string
	want   []string
	hidden bool
}

// refused is every answer that a malformed request may get.
var refused = []string{"400", "404", "405", "411", "413", "414", "417", "421", "431", "501", "503", "505", "closed", "goaway", "reset"}

// TestHostile is the table. The proxy and the control plane have to be as they were when it is over.
func TestHostile(t *testing.T) {
	m := newMesh(t)
	var rows []row
	for _, part := range [][]row{framing(), fields(), sizes(), identityFields(), paths(m), frames(), heads2(), floods(), certificates(t, m), controlPlane(t, m), api(m), tokens(m), hops(m)} {
		rows = append(rows, part...)
	}
	if len(rows) < 200 {
		t.Errorf("only %d inputs", len(rows))
	}
	for _, r := range append(sizes(), floods()...) { // once without being counted: connections to the program are kept for a while
		r.try(m)
	}
	before, err := m.holds()
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			seen := ""
			if r.hidden {
				seen = m.seen()
			}
			got := r.try(m)
			if !one(got, r.want) {
				t.Errorf("%q, want one of %q", got, r.want)
			}
			if err := m.canary(); err != nil {
				t.Fatalf("an honest client after it: %v", err)
			}
			if r.hidden && m.seen() != seen {
				t.Error("something of it has reached the program")
			}
		})
	}
	t.Logf("%d inputs in %s", len(rows), time.Since(begun).Round(time.Millisecond))
	m.eventually("proxy and control plane are as before", func() error {
		after, err := m.holds()
		if err != nil {
			return err
		}
		for name, more := range slack {
			for _, who := range []string{"proxy ", "control plane "} {
				if after[who+name] > before[who+name]+more {
					return fmt.Errorf("%s: %.0f, was %.0f", who+name, after[who+name], before[who+name])
				}
			}
		}
		return nil
	})
}

func one(got string, want []string) bool {
	for _, w := range want {
		if got == w || strings.HasSuffix(w, "*") && strings.HasPrefix(got, strings.TrimSuffix(w, "*")) {
			return true
		}
	}
	return false
}
