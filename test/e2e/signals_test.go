//go:build e2e

package e2e

import (
	"errors"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestTwoIdentities: who is who, proven on both sides, in what is measured.
func TestTwoIdentities(t *testing.T) {
	m := newMesh(t)
	server := m.httpbin("--access-log")
	l := m.load(nil, "http://httpbin:8080/anything")
	type edge struct {
		Source, Destination string
		Port                int
		Requests, Failures  int
		Success             float64
		P50                 float64 `json:"p50_ms"`
		P99                 float64 `json:"p99_ms"`
		MTLS                bool    `json:"mtls"`
	}
	eventually(t, patience, "the edge in tulle stat", func() error {
		text := m.ok(m.cli("stat", "-o", "json"))
		for _, e := range decode[[]edge](t, text) {
			if strings.HasPrefix(e.Source, "load") && strings.HasPrefix(e.Destination, "httpbin") && e.Requests > 0 {
				if !e.MTLS || e.Failures != 0 || e.Success != 1 || e.P50 <= 0 || e.P99 < e.P50 || e.Port != 8080 {
					t.Errorf("the edge is %+v", e)
				}
				return nil
			}
		}
		return errors.New(text)
	})
	for _, w := range m.status().Workloads {
		if want := "spiffe://tulle.local/ns/default/sa/" + w.Service; w.Identity != want {
			t.Errorf("%s is %s, want %s", w.Name, w.Identity, want)
		}
		metrics := finish(t, exec.Command(program(t, "curl", "curl"), "-sS", "http://"+w.Metrics+"/metrics"), patience)
		if requests := sumOf(t, metrics.stdout, "tulle_requests_total", `mtls="true"`); requests < 50 {
			t.Errorf("%s has counted %v requests with mTLS:\n%s", w.Name, requests, tail(metrics.stdout))
		}
		if requests := sumOf(t, metrics.stdout, "tulle_requests_total", `mtls="false"`); requests != 0 {
			t.Errorf("%s has counted %v requests without mTLS", w.Name, requests)
		}
		ready := finish(t, exec.Command("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://"+w.Metrics+"/ready"), patience)
		if ready.stdout != "200" {
			t.Errorf("/ready of %s: %s", w.Name, ready)
		}
	}
	l.flawless()
	if log := server.stderr(); !strings.Contains(log, "spiffe://tulle.local/ns/default/sa/load") && !strings.Contains(log, `"load.default"`) {
		t.Errorf("the access log does not name the caller: %s", tail(log))
	}
}

// sumOf adds the samples of a metric that have a label.
func sumOf(t *testing.T, text, metric, label string) float64 {
	t.Helper()
	sum := 0.0
	for _, sample := range regexp.MustCompile(`(?m)^`+metric+`\{(.*)\} (\S+)`).FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(sample[2], 64)
		if err != nil {
			t.Fatal(sample[0], err)
		}
		if strings.Contains(sample[1], label) {
			sum += v
		}
	}
	return sum
}

// TestMeshPort: the port on which proxies hear each other is of no use to anybody else.
func TestMeshPort(t *testing.T) {
	m := newMesh(t)
	host := machineAddress(t)
	if host == "" {
		t.Fatal("TestMeshPort needs an address that is not the loopback's: connect the machine to a network")
	}
	m.httpbin("--address", host)
	if got := m.curl("-o", "/dev/null", "-w", "%{http_code}", "http://httpbin:8080/get"); got != "200" {
		t.Errorf("a call over %s: %s", host, got)
	}
	var address string
	for _, w := range m.status().Workloads {
		if w.Service == "httpbin" {
			address = w.Address
		}
	}
	if address == "" {
		t.Fatal("httpbin has no address")
	}
	curl := program(t, "curl", "curl")
	for _, url := range []string{"http://" + address + "/get", "https://" + address + "/get"} {
		if r := finish(t, exec.Command(curl, "-sS", "-k", "--max-time", "5", url), patience); r.code == 0 || r.stdout != "" {
			t.Errorf("%s answered somebody without an identity: %s", url, r)
		}
	}
	// A program of the mesh is somebody without an identity as well: only its proxy has one.
	if got := m.ok(m.call(self(t), "dial", address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")); !strings.HasPrefix(got, "ECONNRESET ") && !strings.HasPrefix(got, "EOF ") {
		t.Errorf("a program called the mesh port: %s", got)
	}
}
