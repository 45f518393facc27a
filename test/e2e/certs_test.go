//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/trust"
)

// lives are lifetimes of certificates that a test can see the end of.
var lives = []string{"--identity-lifetime", "10s", "--intermediate-lifetime", "30s", "--root-lifetime", "60s"}

func (m *mesh) certs() trust.Report {
	m.t.Helper()
	return decode[trust.Report](m.t, m.ok(m.cli("cert", "-o", "json")))
}

// phase waits for a phase of the rotation.
func (m *mesh) phase(limit time.Duration, want ca.Phase) {
	m.t.Helper()
	eventually(m.t, limit, "the phase "+string(want), func() error {
		if r := m.certs().Rotation; r.Phase != want {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

// leaf answers the certificate of the workload of a service.
func (m *mesh) leaf(service string) (w trust.Workload, leaf trust.Certificate) {
	m.t.Helper()
	for _, w := range m.certs().Workloads {
		if strings.HasSuffix(w.Identity, "/sa/"+service) && len(w.Chain) > 1 {
			return w, w.Chain[len(w.Chain)-1]
		}
	}
	m.t.Fatalf("no workload of %s has shown a certificate", service)
	return w, leaf
}

// TestRotation: root, intermediate and leaves are replaced under load, with a connection and a handshake for every request of
// one of the callers, while the control plane is restarted in each stage; no request fails.
func TestRotation(t *testing.T) {
	m := newMesh(t, lives...)
	p := m.run([]string{"--service", "httpbin", "--port", "8080", "--port", "raw=8081:8080/tcp"}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF")
	m.announced(p)
	kept := m.load(nil, "http://httpbin:8080/get")
	fresh := m.load([]string{"-close"}, "http://httpbin:8081/get")
	first := m.certs()
	_, leaf := m.leaf("httpbin")
	if len(first.Authorities) != 2 || first.Rotation.Phase != ca.Steady || len(first.Workloads) != 3 || first.First.What == "" || leaf.Role != "leaf" {
		t.Errorf("at first: %+v", first)
	}
	for _, w := range first.Workloads {
		if len(w.Chain) != 3 || w.Chain[0].Role != "root" || w.Chain[1].Role != "intermediate" || !w.Connected {
			t.Errorf("%+v", w)
		}
	}
	token := strings.TrimSpace(m.ok(m.cli("token", "--service", "remote"))) // pins the root that is about to go
	m.ok(m.cli("cert", "rotate", "--intermediate"))
	eventually(t, patience, "the intermediate is another one in every chain", func() error {
		for _, w := range m.certs().Workloads {
			if w.Chain[1].Serial == first.Workloads[0].Chain[1].Serial {
				return errors.New(w.Workload)
			}
		}
		return nil
	})

	restart := func() {
		m.control.killAll()
		m.up()
	}
	m.ok(m.cli("cert", "rotate", "--root"))
	restart()
	m.phase(patience, ca.Signing)
	restart()
	m.phase(patience+10*time.Second, ca.Steady)
	last := m.certs()
	if last.Authorities[0].Serial == first.Authorities[0].Serial || len(last.Authorities) != 2 {
		t.Errorf("the root is the old one: %+v", last.Authorities)
	}
	for _, w := range last.Workloads {
		if w.Chain[0].Serial != last.Authorities[0].Serial {
			t.Errorf("%s: %+v", w.Workload, w.Chain)
		}
	}
	fresh.more(100)
	if c := fresh.finish(); c.Failed > 0 || c.Opened != c.OK {
		t.Errorf("%d of %d failed: %v", c.Failed, c.OK, c.Errors)
	}
	kept.flawless()
	r := m.finish(m.command("run", "--data-dir", filepath.Join(m.dir, "r"), "--control", m.grpc, "--token", token, "--service", "remote", "--",
		"curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "http://httpbin:8080/get"))
	if r.stdout != "200" {
		t.Errorf("a workload with a token of before the rotation: %s", r)
	}
	m.ok(m.cli("check"))
}

// TestRotationStops: a proxy that does not acknowledge stops a rotation, with its name; the rotation goes back, and on when it is
// told to. A file of the authority that is removed is there again, and an alarm says so.
func TestRotationStops(t *testing.T) {
	m := newMesh(t)
	p := m.httpbin()
	proxy := p.proxyOf()
	if err := syscall.Kill(proxy, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(proxy, syscall.SIGCONT) })
	m.ok(m.cli("cert", "rotate", "--root"))
	stopped := func() error {
		r := m.certs().Rotation
		if len(r.Waits) != 1 || !strings.HasPrefix(r.Waits[0].Who, "default/httpbin-") || r.Phase != ca.Announced {
			return fmt.Errorf("%+v", r)
		}
		return nil
	}
	eventually(t, patience, "the rotation waits for the proxy", stopped)
	eventually(t, patience, "the control plane knows that the proxy is gone", func() error {
		for _, w := range m.certs().Workloads {
			if w.Connected {
				return errors.New("connected")
			}
		}
		return nil
	})
	if err := stopped(); err != nil { // it may come back
		t.Error(err)
	}
	if r := m.cli("check"); r.code == 0 || !strings.Contains(r.stdout, "httpbin-") || !strings.Contains(r.stdout, "rotate --force") {
		t.Errorf("tulle check: %s", r)
	}
	m.ok(m.cli("cert", "rotate", "--rollback", "--wait", "10s"))
	if r := m.certs(); len(r.Authorities) != 2 {
		t.Errorf("after the rollback: %+v", r.Authorities)
	}
	m.ok(m.cli("cert", "rotate", "--root", "--force"))
	m.phase(patience, ca.Signing)
	if err := syscall.Kill(proxy, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the proxy is back", func() error {
		if w, _ := m.leaf("httpbin"); !w.Connected || w.Behind {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	if got := m.curl("-o", "/dev/null", "-w", "%{http_code}", "http://httpbin:8080/get"); got != "200" {
		t.Errorf("a call: %s", got)
	}

	list, err := filepath.Glob(filepath.Join(m.data, "ca", "intermediate-*.pem")) // the name has the number of the root
	if err != nil || len(list) != 1 || os.Remove(list[0]) != nil {
		t.Errorf("the intermediates of the new root: %v", list)
	}
	eventually(t, patience, "an alarm", func() error {
		for _, a := range m.certs().Alarms {
			if strings.Contains(a.What, "files") && strings.Contains(a.Message, "intermediate-") {
				return nil
			}
		}
		return errors.New("none")
	})
	private(t, m.data)
}

// TestRevocation: a caller that is revoked loses its open connections within a second, cannot come back, and nobody else
// notices anything; restored, it can.
func TestRevocation(t *testing.T) {
	m := newMesh(t)
	p := m.run([]string{"--service", "httpbin", "--port", "8080", "--port", "raw=8081:8080/tcp"}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF")
	m.announced(p)
	others, raw := m.load(nil, "http://httpbin:8080/get"), m.load(nil, "http://httpbin:8081/get")
	bad := m.run([]string{"--service", "bad"}, self(t), "load", "-connections", "8", "http://httpbin:8081/get")
	eventually(t, patience, "the caller's requests flow", func() error {
		if n := strings.Count(bad.stdout(), "\n"); n < 2 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	w, _ := m.leaf("bad")
	begin := time.Now()
	m.ok(m.cli("cert", "revoke", w.Identity, "--reason", "it was stolen"))
	l := &loader{m: m, p: bad, connections: 8}
	eventually(t, patience, "the caller is refused", func() error {
		if c := l.counts(); c.Failed < 8 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	took := time.Since(begin)
	t.Logf("measured: every connection of the caller had ended %s after the command began", took.Round(time.Millisecond))
	if took > 3*time.Second { // a second, the command itself, and the 200 ms of the load generator's lines
		t.Errorf("that is too late")
	}
	was := l.counts().OK
	others.more(100)
	if now := l.counts(); now.OK != was {
		t.Errorf("%d requests of the caller were answered after it had been revoked", now.OK-was)
	}
	if r := m.ok(m.cli("cert", "revoked")); !strings.Contains(r, w.Identity) || !strings.Contains(r, "it was stolen") {
		t.Errorf("cert revoked: %s", r)
	}
	if r := m.finish(m.runCommand([]string{"--service", "bad"}, "true")); r.code == 0 || !strings.Contains(r.stderr, "revoked") {
		t.Errorf("another workload of the identity: %s", r)
	}
	if r := m.ok(m.cli("explain", "--service", "httpbin", "--failed")); !strings.Contains(r, "TCP to httpbin") || !strings.Contains(r, ": revoked, in ") {
		t.Errorf("explain does not say why connections have ended: %s", r)
	}
	if text := p.stderr(); !strings.Contains(text, "of "+w.Identity+" is revoked") {
		t.Errorf("the log of the server's proxy does not say who was revoked: %s", tail(text))
	}
	if text := bad.stderr(); !strings.Contains(text, "was revoked at") {
		t.Errorf("the caller's log does not say that it was revoked: %s", tail(text))
	}
	if r := m.ok(m.cli("cert")); !strings.Contains(r, "REVOKED") {
		t.Errorf("tulle cert does not mark the certificate: %s", r)
	}
	if r := m.ok(m.cli("cert", "restore", w.Identity)); !strings.Contains(r, "restored "+w.Identity) {
		t.Errorf("cert restore: %s", r)
	}
	eventually(t, patience, "the caller is let in again", func() error {
		if c := l.counts(); c.OK < was+50 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	replaced := m.replaces("bad")
	was = l.counts().OK
	eventually(t, patience, "the caller's requests flow again", func() error {
		if c := l.counts(); c.OK < was+50 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	if text := bad.stderr(); !strings.Contains(text, "certificate with serial number "+replaced) {
		t.Errorf("the caller's log does not say that its certificate was revoked: %s", tail(text))
	}
	raw.flawless()
	others.flawless()
	m.replaces("httpbin")
	l.more(50)
	m.usedUp()
	if r := m.cli("cert", "revoke", "spiffe://tulle.local/ns/default/sa/httpbinn"); r.code != 0 || !strings.Contains(r.stderr, "no workload shows") ||
		!strings.Contains(r.stderr, "spiffe://tulle.local/ns/default/sa/httpbin ") || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("revoke what nobody shows: %s", r)
	}
	for args, want := range map[string]string{"cert revoke nonsense": "neither", "cert restore 77": "77 is not revoked", "cert revoke spiffe://tulle.local/ns/tulle-system/sa/control": "own",
		"cert rotate": "root", "cert rotate --force": "no rotation", "cert rotate --rollback": "no rotation", "cert nobody": "nobody"} {
		if r := m.cli(strings.Fields(args)...); r.code == 0 || !strings.Contains(r.stderr, want) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s: want one line with %q: %s", args, want, r)
		}
	}
}

// usedUp revokes the certificate of a workload that joined by a token for one: it says what it needs, and is back when that is restored.
func (m *mesh) usedUp() {
	m.t.Helper()
	far := *m
	far.data = filepath.Join(m.dir, "far")
	p := far.run([]string{"--service", "far", "--control", m.grpc, "--token", strings.TrimSpace(m.ok(m.cli("token", "--service", "far")))}, "sleep", "60")
	p.expects = "nobody talks to this workload"
	var old trust.Certificate
	eventually(m.t, patience, "it has joined", func() error {
		if !slices.ContainsFunc(m.certs().Workloads, func(w trust.Workload) bool { return strings.HasPrefix(w.Workload, "default/far") }) {
			return errors.New("no certificate")
		}
		_, old = m.leaf("far")
		return nil
	})
	m.ok(m.cli("cert", "revoke", old.Serial))
	eventually(m.t, patience, "its log says what it needs", func() error {
		if text := p.stderr(); !strings.Contains(text, "nobody talks to this workload") || !strings.Contains(text, "'tulle token --service far'") {
			return errors.New(tail(text))
		}
		return nil
	})
	m.ok(m.cli("cert", "restore", old.Serial))
	eventually(m.t, patience, "it is back", func() error {
		if w, leaf := m.leaf("far"); !w.Connected || leaf.Serial != old.Serial || leaf.Note != "" {
			return fmt.Errorf("%+v of %+v", leaf, w)
		}
		return nil
	})
	p.signal(syscall.SIGTERM)
}

// replaces revokes the certificate of a service's workload, which attests again at once; it answers what was revoked.
func (m *mesh) replaces(service string) (serial string) {
	m.t.Helper()
	_, old := m.leaf(service)
	begin := time.Now()
	if r := m.cli("cert", "revoke", old.Serial); r.code != 0 || r.stderr != "" {
		m.t.Fatalf("revoke a certificate of %s: %s", service, r)
	}
	eventually(m.t, patience, service+" has another certificate", func() error {
		if w, now := m.leaf(service); now.Serial == old.Serial || now.Note != "" || !w.Connected {
			return fmt.Errorf("%+v of %+v", now, w)
		}
		return nil
	})
	took := time.Since(begin)
	m.t.Logf("measured: %s had another certificate %s after the command began", service, took.Round(time.Millisecond))
	if took > 10*time.Second { // a second until it says so, the command itself, and a busy machine
		m.t.Error("that is too late")
	}
	return old.Serial
}

// TestPausedControlPlane: while the control plane stands still, what is known stays in force, and who cannot renew says for how
// long; afterwards everything is renewed, and no request has failed.
func TestPausedControlPlane(t *testing.T) {
	m := newMesh(t, lives...)
	p := m.run([]string{"--service", "httpbin", "--port", "8080:8080/tcp"}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF")
	m.announced(p)
	l := m.load([]string{"-close"}, "http://httpbin:8080/get")
	var leaf trust.Certificate
	eventually(t, patience, "the certificate is about to be renewed", func() error { // at half of its life, or a little later
		if _, leaf = m.leaf("httpbin"); time.Until(leaf.Ends) > 6*time.Second {
			return errors.New("it is too new")
		}
		return nil
	})
	if err := syscall.Kill(m.control.pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the proxy says that it cannot renew, and how long that does no harm", func() error {
		if text := p.stderr(); !strings.Contains(text, "could not be renewed") && !strings.Contains(text, "not renewed") || !strings.Contains(text, " left=") {
			return errors.New(tail(text))
		}
		return nil
	})
	if err := syscall.Kill(m.control.pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "it is renewed", func() error {
		if _, now := m.leaf("httpbin"); now.Serial == leaf.Serial {
			return errors.New("the old one")
		}
		return nil
	})
	if c := l.finish(); c.Failed > 0 {
		t.Errorf("%d of %d failed: %v", c.Failed, c.OK, c.Errors)
	}
}

// holdMain opens a number of responses that take long, and counts those that are open, that have come to their end, and that broke
// off, until SIGTERM or until none is open.
func holdMain(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	target, err := url.Parse(args[0])
	if err != nil {
		return err
	}
	var mu sync.Mutex
	sum := counts{Errors: map[string]int{}}
	ended := make(chan struct{}, n)
	for range n {
		go func() {
			err := holdOne(target, func() { mu.Lock(); sum.Opened++; mu.Unlock() })
			mu.Lock()
			if err != nil {
				sum.Failed++
				sum.Errors[err.Error()]++
			} else {
				sum.OK++
			}
			mu.Unlock()
			ended <- struct{}{}
		}()
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for left := n; left > 0; {
		select {
		case <-ended:
			left--
		case <-tick.C:
		}
		mu.Lock()
		sum.Final = left == 0
		_ = json.NewEncoder(os.Stdout).Encode(sum) // who does not read it has ended
		mu.Unlock()
	}
	return nil
}

// holdOne reads one response to its end; opened is called when its first byte is there.
func holdOne(target *url.URL, opened func()) error {
	c, err := net.DialTimeout("tcp", target.Host, 10*time.Second)
	if err != nil {
		return plain(err)
	}
	defer c.Close()
	req := &http.Request{Method: http.MethodGet, URL: target, Host: target.Host}
	if err := req.Write(c); err != nil {
		return plain(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		return plain(err)
	}
	defer resp.Body.Close()
	var b [1]byte
	if _, err := io.ReadFull(resp.Body, b[:]); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %w", resp.Status, plain(err))
	}
	opened()
	if _, err = io.Copy(io.Discard, resp.Body); err != nil {
		return plain(err)
	}
	return nil
}

// TestRevocationOfStreams: of a thousand open streams, over few connections between proxies and over one each, those of the caller
// that is revoked end within a second, and no other is touched.
func TestRevocationOfStreams(t *testing.T) {
	m := newMesh(t)
	p := m.run([]string{"--service", "httpbin", "--port", "8080", "--port", "raw=8081:8080/tcp"}, binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF")
	m.announced(p)
	const each = 250
	hold := func(service, port string) *loader {
		return &loader{m: m, p: m.run([]string{"--service", service}, self(t), "hold", "http://httpbin:"+port+"/drip?duration=6&numbytes=6", strconv.Itoa(each))}
	}
	bad, good := []*loader{hold("bad", "8080"), hold("bad", "8081")}, []*loader{hold("good", "8080"), hold("good", "8081")}
	for _, l := range append(append([]*loader{}, bad...), good...) {
		eventually(t, patience, "all streams are open", func() error {
			if c := l.counts(); c.Opened < each {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
	}
	begin := time.Now()
	m.ok(m.cli("cert", "revoke", "spiffe://tulle.local/ns/default/sa/bad"))
	for _, l := range bad {
		eventually(t, patience, "the streams of who is revoked have ended", func() error {
			if c := l.counts(); c.Failed < each {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
	}
	took := time.Since(begin)
	t.Logf("measured: %d streams had ended %s after the command began", 2*each, took.Round(time.Millisecond))
	if took > 2*time.Second { // a second, and the command itself
		t.Error("that is too late")
	}
	for _, l := range good {
		if code := l.p.wait(patience); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if c := l.counts(); c.OK != each || c.Failed > 0 {
			t.Errorf("somebody else's streams: %+v", c)
		}
	}
}
