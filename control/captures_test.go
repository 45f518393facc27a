package control

import (
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/registry"
	"github.com/tulle-mesh/tulle/xds/server"
)

// TestCaptures: an alarm lasts until the proxy that has raised it takes it back or is gone; one before it has no say any more.
func TestCaptures(t *testing.T) {
	var c captures
	said := func(want string) {
		t.Helper()
		var got []string
		for _, a := range c.alarms() {
			got = append(got, a.What+": "+a.Message)
		}
		if text := strings.Join(got, "; "); want == "" && text != "" || !strings.Contains(text, want) {
			t.Errorf("%q, want %q", text, want)
		}
	}
	first, second := registry.Workload{Namespace: "default", Name: "a"}, registry.Workload{Namespace: "default", Name: "a", Starts: 1}
	broken := server.Capture{Broken: "no rules", Since: time.Unix(1_800_000_000, 0)}
	c.left(first)
	said("")
	c.note(first, broken)
	said("capture of workload default/a: since 2027-01-15T08:00:00Z")
	c.note(second, server.Capture{Broken: "no route", Closed: true})
	c.left(first)
	said("takes no requests: no route")
	c.note(second, server.Capture{})
	said("")
	c.note(second, broken)
	c.left(second)
	said("")
}
