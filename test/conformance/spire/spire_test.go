//go:build conformance && spire

// Package spire has the real SPIRE server sign: the contract of issuers, and a mesh whose workloads get the identities that SPIRE's
// registration entries name, and no others, also while SPIRE goes over to another authority and while it is away.
package spire

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	issuer "github.com/tulle-mesh/tulle/control/ca/issuer/spire"
	"github.com/tulle-mesh/tulle/test/conformance/signed"
	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// parent is whose entries those of the mesh are: an alias of the control plane's agent.
const parent = "spiffe://" + issuertest.TrustDomain + "/tulle"

// server is a real SPIRE server.
type server struct {
	t       *testing.T
	dir     string
	port    int
	process *subject.Process
	token   string
	cfg     issuer.Config
}

func newServer(t *testing.T) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "sp") // short: a unix socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &server{t: t, dir: dir, port: subject.Port(t)}
	s.start()
	bundle := s.write("bundle.pem", s.command("bundle", "show"))
	for _, account := range []string{"cart", "web"} {
		s.entry("default", account)
	}
	token := regexp.MustCompile(`Token: (\S+)`).FindStringSubmatch(s.command("token", "generate", "-spiffeID", parent))
	if token == nil {
		t.Fatal("no join token")
	}
	s.token = token[1]
	s.cfg = issuer.Config{Address: fmt.Sprintf("127.0.0.1:%d", s.port), TrustDomain: issuertest.TrustDomain, Bundle: bundle, Token: s.write("token", s.token+"\n"), Dir: filepath.Join(dir, "agent")}
	return s
}

func (s *server) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *server) socket() string { return filepath.Join(s.dir, "api.sock") }

// start starts it, also again with what it has kept.
func (s *server) start() {
	s.t.Helper()
	config := s.write("server.conf", fmt.Sprintf(`
server {
  bind_address = "127.0.0.1"
  bind_port = "%d"
  socket_path = "%s"
  trust_domain = "%s"
  data_dir = "%s"
  log_level = "INFO"
  ca_ttl = "24h"
  default_x509_svid_ttl = "1h"
  experimental { cache_reload_interval = "200ms" } # an entry counts from then on; by default 5 s
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3", connection_string = "%s/data.sqlite3" } }
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "disk" { plugin_data { keys_path = "%s/keys.json" } }
}
`, s.port, s.socket(), issuertest.TrustDomain, s.dir, s.dir, s.dir))
	s.process = subject.Run(s.t, "spire-server", nil, subject.Binary(s.t, "spire-server"), "run", "-config", config)
	s.process.Wait("is healthy", func() error {
		_, err := s.try("healthcheck")
		return err
	})
}

func (s *server) try(args ...string) (string, error) {
	// A verb of two words comes before the flags.
	n := 1
	for n < len(args) && !strings.HasPrefix(args[n], "-") {
		n++
	}
	all := append(append(append([]string{}, args[:n]...), "-socketPath", s.socket()), args[n:]...)
	out, err := exec.Command(subject.Binary(s.t, "spire-server"), all...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("spire-server %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (s *server) command(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// entry registers an identity, more are its options.
func (s *server) entry(namespace, account string, more ...string) {
	s.t.Helper()
	s.command(append([]string{"entry", "create", "-parentID", parent, "-spiffeID", fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", issuertest.TrustDomain, namespace, account),
		"-selector", "tulle:sa:" + namespace + "/" + account}, more...)...)
}

// sees waits until the server has made its cache of entries anew.
func (s *server) sees(i *issuer.Issuer) {
	s.t.Helper()
	for _, account := range []string{"cart", "web"} {
		r, _ := issuertest.Request(s.t, account)
		s.process.Wait("knows the entries", func() error {
			_, err := i.Sign(s.t.Context(), r)
			return err
		})
	}
}

// rotate has it sign with another authority, which it has named before.
func (s *server) rotate() {
	s.t.Helper()
	s.command("localauthority", "x509", "prepare")
	s.activate()
}

func (s *server) activate() {
	s.t.Helper()
	var shown struct {
		Prepared struct {
			ID string `json:"authority_id"`
		} `json:"prepared"`
	}
	if err := json.Unmarshal([]byte(s.command("localauthority", "x509", "show", "-output", "json")), &shown); err != nil || shown.Prepared.ID == "" {
		s.t.Fatalf("no prepared authority: %v", err)
	}
	s.command("localauthority", "x509", "activate", "-authorityID", shown.Prepared.ID)
}

func (s *server) stop() { signed.Stop(s.t, s.process, syscall.SIGTERM) }

// TestContract: the contract of issuers, against the real program.
func TestContract(t *testing.T) {
	issuertest.Run(t, func(t *testing.T) issuertest.Rig {
		s := newServer(t)
		i, err := issuer.New(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.sees(i)
		return issuertest.Rig{Issuer: i, Rotate: func(context.Context) { s.rotate() }, Away: s.stop, Secrets: []string{s.token}}
	})
}

// TestAgent: who has no entry gets nothing; a join token is good once, and what was attested outlives a restart of the control plane.
func TestAgent(t *testing.T) {
	s := newServer(t)
	open := func(cfg issuer.Config) *issuer.Issuer {
		i, err := issuer.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(i.Close)
		return i
	}
	first := open(s.cfg)
	s.sees(first)
	cart, _ := issuertest.Request(t, "cart")
	if _, err := first.Sign(t.Context(), cart); err != nil {
		t.Fatal(err)
	}
	stranger, _ := issuertest.Request(t, "stranger")
	if _, err := first.Sign(t.Context(), stranger); err == nil || !strings.Contains(err.Error(), "spire-server entry create -parentID spiffe://mesh.example/spire/agent/join_token/"+s.token+" -spiffeID "+stranger.ID.String()) {
		t.Errorf("without an entry: %v", err)
	}
	s.entry("default", "named", "-dns", "named.example")
	named, _ := issuertest.Request(t, "named")
	if _, err := first.Sign(t.Context(), named); err == nil || !strings.Contains(err.Error(), "DNS") && !strings.Contains(err.Error(), "no registration entry") {
		t.Errorf("with a DNS name: %v", err)
	}
	cfg := s.cfg
	cfg.Token = ""
	if _, err := open(cfg).Sign(t.Context(), cart); err != nil {
		t.Errorf("after a restart, without the token: %v", err)
	}
	again := s.cfg
	again.Dir = filepath.Join(s.dir, "another")
	if _, err := open(again).Sign(t.Context(), cart); err == nil || !strings.Contains(err.Error(), "token generate") || strings.Contains(err.Error(), s.token) {
		t.Errorf("with the token of another: %v", err)
	}
	other := s.cfg
	other.Bundle = s.write("other.pem", string(issuertest.NewTree(t, "other").RootPEM()))
	if _, err := open(other).Sign(t.Context(), cart); err == nil {
		t.Error("a server that is not below the bundle was believed")
	}
}

// TestMesh: workloads get from SPIRE what their entries name and call each other over mTLS, a connection for each call, while SPIRE goes
// over to another authority, and while it is away: then an alarm says so.
func TestMesh(t *testing.T) {
	s := newServer(t)
	s.entry("tulle-system", "control", "-x509SVIDTTL", "20")
	s.entry("default", "httpbin", "-x509SVIDTTL", "20")
	s.entry("default", "shell", "-x509SVIDTTL", "20")
	m := signed.Up(t, filepath.Join(s.dir, "d"), "--trust-domain", issuertest.TrustDomain, "--identity-lifetime", "30s", "--issuer", "spire", "--issuer-address", s.cfg.Address,
		"--issuer-ca", s.cfg.Bundle, "--issuer-token-file", s.cfg.Token)
	m.Call()
	if out, err := m.Tulle("run", "--service", "stranger", "--", "true"); err == nil {
		t.Errorf("a workload without an entry got an identity: %s", out)
	}
	first := ""
	m.Control.Wait("has workloads below SPIRE's root", func() error {
		r, err := m.Certs()
		if err != nil || len(r.Workloads) != 2 || !strings.HasPrefix(r.Issuer, "SPIRE server at ") {
			return fmt.Errorf("%v: %d workloads, issuer %s", err, len(r.Workloads), r.Issuer)
		}
		first = r.Workloads[0].Chain[0].Serial
		return nil
	})
	s.command("localauthority", "x509", "prepare")
	m.Control.Wait("believes the next root", func() error {
		r, err := m.Certs()
		if err != nil || len(r.Authorities) < 2 {
			return fmt.Errorf("%v: %d authorities", err, len(r.Authorities))
		}
		return nil
	})
	s.activate()
	signed.Within(t, 2*time.Minute, "workloads leave the old root", func() error {
		r, err := m.Certs()
		for _, w := range r.Workloads {
			if w.Chain[0].Serial == first {
				return fmt.Errorf("%s is below the old root; alarms %+v", w.Workload, r.Alarms)
			}
		}
		return err
	})
	s.stop()
	m.Control.Wait("raises an alarm", m.Alarmed("SPIRE server at "+s.cfg.Address))
	m.Well("while SPIRE went over, or was away")
	m.Secret(s.token)
}
