//go:build conformance

// Package stepca has the real step-ca sign: the contract of issuers, and a mesh whose workloads get their identities from it, also
// while its root is replaced.
package stepca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	issuer "github.com/tulle-mesh/tulle/control/ca/issuer/stepca"
	"github.com/tulle-mesh/tulle/control/trust"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

const password = "correct horse battery staple"

// server is a real step-ca, with a JWK provisioner "mesh".
type server struct {
	t       *testing.T
	dir     string
	port    int
	key     jose.JSONWebKey
	roots   []*x509.Certificate // that it lists
	process *subject.Process
	runs    int
	cfg     issuer.Config
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), port: subject.Port(t)}
	key, err := svid.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s.key = jose.JSONWebKey{Key: key, KeyID: "mesh-1", Algorithm: string(jose.ES256), Use: "sig"}
	text, err := json.Marshal(s.key)
	if err != nil {
		t.Fatal(err)
	}
	encrypter, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.PBES2_HS256_A128KW, Key: []byte(password), PBES2Count: 10_000}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jwe, err := encrypter.Encrypt(text)
	if err != nil {
		t.Fatal(err)
	}
	s.cfg = issuer.Config{Address: fmt.Sprintf("https://127.0.0.1:%d", s.port), CAFile: s.write("ca.pem", nil), Provisioner: "mesh",
		Key: s.write("mesh-key.json", []byte(jwe.FullSerialize())), Password: s.write("password", []byte(password+"\n"))}
	s.start()
	return s
}

func (s *server) write(name string, text []byte) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// start starts step-ca with a new root, which it lists beside those of before.
func (s *server) start() {
	s.t.Helper()
	tree := issuertest.NewTree(s.t, fmt.Sprintf("step root %d", s.runs))
	tree.Middle("step intermediate")
	s.runs++
	s.roots = append([]*x509.Certificate{tree.Root}, s.roots...)
	s.write("ca.pem", issuertest.PEM(s.roots...))
	var roots []string
	for i, c := range s.roots {
		roots = append(roots, s.write(fmt.Sprintf("root-%d.pem", i), issuertest.PEM(c)))
	}
	config, err := json.Marshal(map[string]any{
		"root": roots, "crt": s.write("intermediate.pem", tree.ChainPEM()), "key": s.write("intermediate-key.pem", tree.KeyPEM()),
		"address": fmt.Sprintf("127.0.0.1:%d", s.port), "dnsNames": []string{"127.0.0.1"}, "logger": map[string]string{"format": "text"},
		"db": map[string]string{"type": "bbolt", "dataSource": filepath.Join(s.dir, "db")},
		"authority": map[string]any{
			"claims":       map[string]any{"minTLSCertDuration": "2s", "maxTLSCertDuration": "24h", "defaultTLSCertDuration": "1h"},
			"provisioners": []any{map[string]any{"type": "JWK", "name": "mesh", "key": s.key.Public()}},
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.process = subject.Run(s.t, "step-ca", nil, subject.Binary(s.t, "step-ca"), s.write("ca.json", config))
	pool := x509.NewCertPool()
	pool.AddCert(tree.Root)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	s.process.Wait("is healthy", func() error {
		res, err := client.Get(s.cfg.Address + "/health")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
}

// rotate has it start again with a new root.
func (s *server) rotate() {
	s.t.Helper()
	s.stop()
	s.start()
}

func (s *server) stop() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if p, err := os.FindProcess(s.process.PID()); err == nil {
		_ = p.Signal(os.Interrupt) // gone already: End says so
	}
	if _, err := s.process.End(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// TestContract: the contract of issuers, against the real program. One of its processes is for all that do not end it.
func TestContract(t *testing.T) {
	issuertest.Run(t, func(t *testing.T) issuertest.Rig {
		s := newServer(t)
		i, err := issuer.New(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		return issuertest.Rig{Issuer: i, Rotate: func(context.Context) { s.rotate() }, Away: s.stop, Secrets: []string{password}}
	})
}

// TestErrors: what goes wrong is told with what to do.
func TestErrors(t *testing.T) {
	s := newServer(t)
	r, _ := issuertest.Request(t, "cart")
	for name, c := range map[string]struct {
		change func(*issuer.Config)
		ttl    time.Duration
		want   string
	}{
		"another provisioner": {func(c *issuer.Config) { c.Provisioner = "other" }, time.Hour, "401"},
		"too long":            {func(*issuer.Config) {}, 30 * time.Hour, "lifetime"},
		"another root":        {func(c *issuer.Config) { c.CAFile = s.write("other.pem", issuertest.NewTree(t, "other").RootPEM()) }, time.Hour, "not believed"},
	} {
		cfg := s.cfg
		c.change(&cfg)
		i, err := issuer.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		r.TTL = c.ttl
		if _, err := i.Sign(t.Context(), r); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "step-ca at https://127.0.0.1") {
			t.Errorf("%s: %v", name, err)
		}
		i.Close()
	}
	cfg := s.cfg
	cfg.Password = s.write("wrong", []byte("wrong"))
	if _, err := issuer.New(cfg); err == nil || !strings.Contains(err.Error(), "does not open it") {
		t.Errorf("a wrong password: %v", err)
	}
}

// mesh is a control plane whose issuer is step-ca.
type mesh struct {
	t    *testing.T
	data string
	up   *subject.Process
}

func (m *mesh) tulle(args ...string) (string, error) {
	c := exec.Command(subject.Binary(m.t, "tulle"), append(args[:len(args):len(args)], "--data-dir", m.data)...)
	c.Env = append(os.Environ(), "XDG_STATE_HOME="+m.data+".state")
	out, err := c.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, e.Stderr)
	}
	return string(out), err
}

func (m *mesh) certs() (r trust.Report, err error) {
	out, err := m.tulle("cert", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &r)
	}
	return r, err
}

// below reports an error unless every chain of a workload leads to a root, and n workloads have shown one.
func (m *mesh) below(root *x509.Certificate, n int) func() error {
	return func() error {
		r, err := m.certs()
		if err != nil {
			return err
		}
		if len(r.Workloads) != n || !strings.HasPrefix(r.Issuer, "step-ca at ") {
			return fmt.Errorf("%d workloads, issuer %s", len(r.Workloads), r.Issuer)
		}
		for _, w := range r.Workloads {
			if len(w.Chain) < 3 || w.Chain[0].Serial != root.SerialNumber.Text(16) {
				return fmt.Errorf("%s: %+v; alarms %+v; rotation %+v", w.Workload, w.Chain, r.Alarms, r.Rotation)
			}
		}
		return nil
	}
}

// TestMesh: workloads of a mesh get their identities from step-ca and call each other over mTLS, a connection for each call; step-ca goes
// over to a new root meanwhile, is away for a while, and no call fails.
func TestMesh(t *testing.T) {
	s := newServer(t)
	m := &mesh{t: t, data: filepath.Join(t.TempDir(), "d")}
	tulle := subject.Binary(t, "tulle")
	grpc := fmt.Sprintf("127.0.0.1:%d", subject.Port(t))
	m.up = subject.Run(t, "tulle up", nil, tulle, "up", "--data-dir", m.data, "--http-listen", fmt.Sprintf("127.0.0.1:%d", subject.Port(t)), "--grpc-listen", grpc,
		"--identity-lifetime", "20s", "--issuer", "step-ca", "--issuer-address", s.cfg.Address, "--issuer-ca", s.cfg.CAFile, "--issuer-provisioner", "mesh",
		"--issuer-key", s.cfg.Key, "--issuer-password-file", s.cfg.Password)
	says := func(p *subject.Process, text string) func() error {
		return func() error {
			if !strings.Contains(p.Output(), text) {
				return errors.New("it has not said so")
			}
			return nil
		}
	}
	m.up.Wait("is ready", says(m.up, " ready after "))
	subject.Run(t, "httpbin", nil, tulle, "run", "--data-dir", m.data, "--service", "httpbin", "--port", "8080", "--", subject.Binary(t, "go-httpbin"), "-port", "8080", "-log-level", "OFF")
	// One connection of curl, and so one handshake at the least, for each call; -f: anything but 2xx ends it.
	loop := subject.Run(t, "calls", nil, tulle, "run", "--data-dir", m.data, "--service", "shell", "--wait-for", "httpbin", "--", "sh", "-c",
		`n=0; while curl -fsS --max-time 10 -o /dev/null http://httpbin:8080/get; do n=$((n+1)); echo called $n; sleep 0.1; done; echo FAILED after $n`)
	loop.Wait("has called", says(loop, "called 3\n"))
	m.up.Wait("has workloads below step-ca's root", m.below(s.roots[0], 2))
	if out, err := m.tulle("cert"); err != nil || !strings.Contains(out, "issued by step-ca at "+s.cfg.Address) {
		t.Errorf("tulle cert: %v: %s", err, out)
	}

	s.rotate()
	begin := time.Now()
	for err := errors.New("not yet"); err != nil; { // poll
		if err = m.below(s.roots[0], 2)(); err != nil && time.Since(begin) > time.Minute {
			t.Fatalf("workloads do not come below the new root: %v", err)
		}
		time.Sleep(100 * time.Millisecond) // poll
	}
	if strings.Contains(loop.Output(), "FAILED") {
		t.Errorf("a call failed: %s", loop.Output())
	}
	for _, secret := range []string{password, "eyJ"} { // a token, or the key
		if strings.Contains(m.up.Output(), secret) {
			t.Errorf("a secret is in the log: %s", m.up.Output())
		}
	}
	s.stop()
	m.up.Wait("raises an alarm", func() error {
		r, err := m.certs()
		for _, a := range r.Alarms {
			if strings.Contains(a.Message, "step-ca at "+s.cfg.Address) {
				return nil
			}
		}
		return fmt.Errorf("%v, alarms %+v", err, r.Alarms)
	})
	if strings.Contains(loop.Output(), "FAILED") {
		t.Errorf("a call failed while step-ca was away: %s", loop.Output())
	}
}
