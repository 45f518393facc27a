//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/httpapi"
)

// flakyMain is a server that is gone for 300 ms of every second and a half, as one that is restarted over and over.
func flakyMain([]string) error {
	for {
		l, err := net.Listen("tcp", ":8080")
		if err != nil {
			return err
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })}
		go s.Serve(l)
		<-time.After(1200 * time.Millisecond)
		s.Close()
		<-time.After(300 * time.Millisecond)
	}
}

// TestRetriesAreLearned: what a caller's proxy sees of outages comes to the control plane, and tulle retries tells it with the
// waits that follow.
func TestRetriesAreLearned(t *testing.T) {
	m := newMesh(t)
	server := m.run([]string{"--service", "flaky", "--port", "8080/http", "--ready", "tcp"}, self(t), "flaky")
	m.announced(server)
	first := m.ok(m.cli("retries", "flaky"))
	if !strings.Contains(first, "25ms to 250ms, exponential") {
		t.Errorf("before anything was learned:\n%s", first)
	}
	l := m.load(nil, "http://flaky:8080/")
	eventually(t, time.Minute, "enough outages", func() error {
		list := decode[[]httpapi.Retries](t, m.ok(m.cli("retries", "flaky", "-o", "json")))
		if len(list) != 1 || !list[0].Learned {
			return fmt.Errorf("%+v", list)
		}
		if r := list[0]; len(r.Waits) != 4 || len(r.Last) == 0 || r.Whole.P90 < 100 || r.Whole.P90 > 2000 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	text := m.ok(m.cli("retries", "flaky"))
	t.Log("\n" + text)
	if strings.Contains(text, "exponential") || !strings.Contains(text, "learned: ") || !strings.Contains(text, "flaky.default:8080") || !strings.Contains(text, " ago") {
		t.Errorf("after it was learned:\n%s", text)
	}
	if r := m.cli("retries", "nobody"); r.code != 1 || !strings.Contains(r.stderr, "nobody") {
		t.Errorf("of no service: %s", r)
	}
	if c := l.finish(); c.Failed == 0 {
		t.Error("nobody has seen the outages: retries without a wait do not help")
	}

	// With a policy the waits are used: who is caught by an outage is answered after it.
	m.apply(`apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: flaky}
spec:
  targetRefs: [{group: "", kind: Service, name: flaky}]
  retries: {attempts: 6}
  retryBudget: {percent: 100, least: 100}
`)
	l = m.load(nil, "http://flaky:8080/")
	begin := time.Now()
	eventually(t, time.Minute, "some more outages", func() error {
		if since := time.Since(begin); since < 8*time.Second {
			return fmt.Errorf("%s", since)
		}
		return nil
	})
	t.Log("\n" + m.ok(m.cli("retries", "flaky")))
	eventually(t, 10*time.Second, "the attempts of callers", func() error {
		if r := decode[[]httpapi.Retries](t, m.ok(m.cli("retries", "flaky", "-o", "json")))[0]; r.Made == 0 || r.Left == nil || len(r.Routes) == 0 || r.Routes[0].Pinned || len(r.Routes[0].Waits) == 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if c := l.finish(); c.Failed*1000 > c.OK {
		t.Errorf("%d of %d failed with learned waits", c.Failed, c.OK+c.Failed)
	}

	// Another control plane knows it from the store: nobody fails any more, so nobody tells it.
	m.control.killAll()
	m.up()
	eventually(t, 10*time.Second, "what was learned before", func() error {
		list := decode[[]httpapi.Retries](t, m.ok(m.cli("retries", "flaky", "-o", "json")))
		if len(list) != 1 || list[0].Whole.Outages < 0.9 || len(list[0].Last) == 0 {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
}
