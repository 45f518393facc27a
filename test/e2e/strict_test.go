//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/identity/attest"
)

// serveOKMain serves HTTP where its arguments say.
func serveOKMain(args []string) error {
	ends := make(chan error, len(args))
	for _, at := range args {
		go func() {
			ends <- http.ListenAndServe(at, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
		}()
	}
	return <-ends
}

// authenticate is an AuthenticationPolicy.
func authenticate(name, spec string) string {
	return fmt.Sprintf("apiVersion: tulle.dev/v1alpha1\nkind: AuthenticationPolicy\nmetadata: {name: %s}\nspec: %s\n", name, spec)
}

// identityOf answers the certificate of a workload that is not there: this process joins the mesh as it would.
func (m *mesh) identityOf(service string) tls.Certificate {
	m.t.Helper()
	token := strings.TrimSpace(m.ok(m.cli("token", "--service", service)))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, err := attest.Start(ctx, attest.Config{Namespace: "default", ServiceAccount: service, Token: token, Address: m.grpc, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(id.Close)
	return id.Current().Certificate
}

// outsider calls published ports from outside of the mesh.
type outsider struct {
	t             *testing.T
	good, foreign tls.Certificate
}

// call answers the status and the reason of one request, or why there was none. certificate: nil is plaintext.
func (o *outsider) call(port string, certificate *tls.Certificate) string {
	url := "http://127.0.0.1:" + port + "/get"
	tr := &http.Transport{DisableKeepAlives: true}
	if certificate != nil {
		url = "https" + strings.TrimPrefix(url, "http")
		tr.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, ServerName: "web.default", NextProtos: []string{"http/1.1"}}
		if certificate.Certificate != nil {
			tr.TLSClientConfig.Certificates = []tls.Certificate{*certificate}
		}
	}
	r, err := (&http.Client{Transport: tr, Timeout: patience}).Get(url)
	if err != nil {
		return "refused"
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return "refused"
	}
	return strings.TrimSpace(strconv.Itoa(r.StatusCode) + " " + r.Header.Get("tulle-reason"))
}

// as are the answers to a caller in plaintext, one of the mesh, one of another authority's, and one without a certificate.
type answersAs [4]string

func (o *outsider) answers(port string) answersAs {
	return answersAs{o.call(port, nil), o.call(port, &o.good), o.call(port, &o.foreign), o.call(port, &tls.Certificate{})}
}

// TestStrict: what callers from outside of the mesh must prove is one line, for the mesh, a namespace, some workloads or a port; who
// would be cut off is told before, and health probes and scrapes of metrics go on.
func TestStrict(t *testing.T) {
	m := newMesh(t)
	web, raw := freePort(t), freePort(t)
	p := m.run([]string{"--service", "web", "--port", "8080/http", "--port", "raw=8081:8080/tcp", "--publish", web + "=8080", "--publish", raw + "=8081",
		"--label", "tier=front", "--ready", "http:/get", "--metrics", "127.0.0.1:0"}, self(t), "serve-ok", ":8080")
	m.announced(p)
	_, _, cert, key := outsideCA(t)
	foreign, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	o := &outsider{t, m.identityOf("visitor"), foreign}

	strict := answersAs{"403 mtls_required", "200", "refused", "refused"}
	permissive, disabled := answersAs{"200", "200", "refused", "refused"}, answersAs{"200", "refused", "refused", "refused"}
	if r := m.cli("check", "--strict"); r.code != 0 || !strings.Contains(r.stdout, "nobody has reached") {
		t.Errorf("before anybody has called: %s", r)
	}
	for _, c := range []struct {
		name, yaml string
		web, raw   answersAs
	}{
		{"nothing is said", "", permissive, permissive},
		{"the mesh", "apiVersion: tulle.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {mtls: {mode: Strict}}\n", strict, strict},
		{"the namespace", authenticate("namespace", "{mtls: {mode: Permissive}}"), permissive, permissive},
		{"some workloads", authenticate("front", "{selector: {tier: front}, mtls: {mode: Strict}}"), strict, strict},
		{"a port", authenticate("port", "{targetRefs: [{group: \"\", kind: Service, name: web}], mtls: {ports: [{port: raw, mode: Disabled}]}}"), strict, disabled},
	} {
		if c.yaml != "" {
			m.apply(c.yaml)
		}
		if got := o.answers(web); got != c.web {
			t.Errorf("%s, HTTP: %q, want %q", c.name, got, c.web)
		}
		if got := o.answers(raw); got != c.raw {
			t.Errorf("%s, TCP: %q, want %q", c.name, got, c.raw)
		}
		m.probes(t, p)
		switch c.name {
		case "nothing is said":
			eventually(t, patience, "who would be cut off is told", func() error {
				r := m.cli("check", "--strict")
				for _, want := range []string{"web.default 8080 Permissive 127.0.0.1 1 0 ", "web.default 8081 Permissive 127.0.0.1 1 0 ", "GET /get", "connections"} {
					if !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), want) {
						return fmt.Errorf("without %q: %s", want, r)
					}
				}
				if r.code == 0 || !strings.Contains(r.stderr, "2 callers would be cut off") {
					return fmt.Errorf("%s", r)
				}
				return nil
			})
		case "the mesh":
			m.plainTCP(p, raw)
			eventually(t, patience, "who is cut off is told", func() error {
				if r := m.cli("check", "--strict"); r.code != 0 || !strings.Contains(r.stdout, "refused already") {
					return fmt.Errorf("%s", r)
				}
				return nil
			})
		}
	}
}

// plainTCP calls a strict port of p in plaintext that is no HTTP: it is reset, and the log and explain say by what.
func (m *mesh) plainTCP(p *process, port string) {
	m.t.Helper()
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "SSH-2.0-x\r\n"); err != nil {
		m.t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err == nil {
		m.t.Error("plaintext on a strict port is not reset")
	}
	said := m.ok(m.cli("explain", "--service", "web", "--denied"))
	for _, part := range []string{"TCP to web.default:8081", "127.0.0.1 in plaintext → ", "refused   by MeshConfig/mesh: plaintext"} {
		if !strings.Contains(said, part) {
			m.t.Errorf("without %q:\n%s", part, said)
		}
	}
	for _, part := range []string{"msg=mtls_required", "policy=MeshConfig/mesh", "msg=tls_failed"} {
		if text := p.stderr(); !strings.Contains(text, part) {
			m.t.Errorf("the log, without %q: %s", part, tail(text))
		}
	}
}

// probes asks the proxy's own port as a health probe does, and scrapes it as Prometheus does.
func (m *mesh) probes(t *testing.T, p *process) {
	t.Helper()
	for _, w := range m.status().Workloads {
		if w.PID != p.pid() {
			continue
		}
		for _, path := range []string{"/ready", "/health"} {
			if text, code := getText(t, "http://"+w.Metrics+path); code != http.StatusOK {
				t.Errorf("%s: %d %s", path, code, text)
			}
		}
		text, code := getText(t, "http://"+w.Metrics+"/metrics")
		samples, err := readSamples(text)
		if code != http.StatusOK || err != nil || samples["tulle_capture_works"] != 1 {
			t.Errorf("the scrape: %d, %v, %d samples", code, err, len(samples))
		}
		return
	}
	t.Error("the workload is not there")
}

// readSamples reads Prometheus' text format strictly enough to find what a scraper would not take. It answers samples without labels.
func readSamples(text string) (map[string]float64, error) {
	out := map[string]float64{}
	types := map[string]bool{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ := strings.Cut(rest, " ")
			if types[name] {
				return nil, fmt.Errorf("%s has a type twice", name)
			}
			types[name] = true
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		if i < 0 {
			return nil, fmt.Errorf("no sample: %q", line)
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return nil, err
		}
		if name := line[:i]; !strings.Contains(name, "{") {
			out[name] = v
		}
	}
	if len(types) == 0 {
		return nil, errors.New("no metrics")
	}
	return out, nil
}
