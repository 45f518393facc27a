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
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	issuer "github.com/tulle-mesh/tulle/control/ca/issuer/stepca"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/test/conformance/signed"
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

func (s *server) stop() { signed.Stop(s.t, s.process, os.Interrupt) }

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

// TestMesh: workloads of a mesh get their identities from step-ca and call each other over mTLS, a connection for each call; step-ca goes
// over to a new root meanwhile, is away for a while, and no call fails.
func TestMesh(t *testing.T) {
	s := newServer(t)
	m := signed.Up(t, filepath.Join(t.TempDir(), "d"), "--identity-lifetime", "20s", "--issuer", "step-ca", "--issuer-address", s.cfg.Address, "--issuer-ca", s.cfg.CAFile,
		"--issuer-provisioner", "mesh", "--issuer-key", s.cfg.Key, "--issuer-password-file", s.cfg.Password)
	m.Call()
	m.Control.Wait("has workloads below step-ca's root", m.Below(s.roots[0], "step-ca at "))
	if out, err := m.Tulle("cert"); err != nil || !strings.Contains(out, "issued by step-ca at "+s.cfg.Address) {
		t.Errorf("tulle cert: %v: %s", err, out)
	}
	s.rotate()
	signed.Within(t, time.Minute, "workloads come below the new root", m.Below(s.roots[0], "step-ca at "))
	m.Well("while the root was replaced")
	m.Secret(password, "eyJ") // a token, or the key
	s.stop()
	m.Control.Wait("raises an alarm", m.Alarmed("step-ca at "+s.cfg.Address))
	m.Well("while step-ca was away")
}
