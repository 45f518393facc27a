package etcd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/etcd"
	"github.com/tulle-mesh/tulle/control/store/storetest"
)

// server is a real etcd, as a cluster's operator would run it.
type server struct {
	url  string
	args []string
	cmd  *exec.Cmd
}

// startServer runs the etcd of this machine, with mutual TLS when certs is a folder of certificates.
func startServer(t *testing.T, certs string) *server {
	t.Helper()
	bin, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatal("this test needs a real etcd: install it with 'apt-get install etcd-server'")
	}
	scheme := "http"
	if certs != "" {
		scheme = "https"
	}
	s := &server{url: scheme + "://" + freePort(t)}
	peer := "http://" + freePort(t)
	s.args = []string{bin, "--name", "a", "--data-dir", t.TempDir(), "--listen-client-urls", s.url, "--advertise-client-urls", s.url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "a=" + peer, "--log-level", "error", "--logger", "zap",
		"--heartbeat-interval", "20", "--election-timeout", "200"}
	if certs != "" {
		s.args = append(s.args, "--cert-file", filepath.Join(certs, "cert.pem"), "--key-file", filepath.Join(certs, "key.pem"),
			"--trusted-ca-file", filepath.Join(certs, "ca.pem"), "--client-cert-auth")
	}
	s.start(t)
	t.Cleanup(s.stop)
	return s
}

func (s *server) start(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stderr = t.Output()
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (s *server) stop() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// dial answers a store over s once it serves.
func dial(t *testing.T, cfg etcd.Config) *etcd.Store {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, where, _ := strings.Cut(cfg.Endpoints[0], "://")
	for ctx.Err() == nil { // a refused connection would make the client back off for a second
		if c, err := net.Dial("tcp", where); err == nil {
			c.Close()
			break
		}
		time.Sleep(5 * time.Millisecond) // poll
	}
	for {
		s, err := etcd.Dial(ctx, cfg)
		if err == nil {
			t.Cleanup(func() { s.Close() })
			return s
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestContractReal(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (store.Store, func(int64) error) {
		s := dial(t, etcd.Config{Endpoints: []string{startServer(t, "").url}})
		return s, func(rev int64) error { return s.Compact(t.Context(), rev) }
	})
}

func TestDialTLS(t *testing.T) {
	certs := certificates(t)
	s := startServer(t, certs)
	file := func(name string) string { return filepath.Join(certs, name) }
	cfg := etcd.Config{Endpoints: []string{s.url}, CACert: file("ca.pem"), Cert: file("cert.pem"), Key: file("key.pem")}
	one := dial(t, cfg)
	if _, err := one.Put(t.Context(), store.Object{Key: store.Key{Kind: "Service", Name: "a"}}, store.Absent); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]etcd.Config{
		"no client certificate": {Endpoints: cfg.Endpoints, CACert: cfg.CACert},
		"unknown authority":     {Endpoints: cfg.Endpoints},
		"key without cert":      {Endpoints: cfg.Endpoints, CACert: cfg.CACert, Key: cfg.Key},
		"plain endpoint":        {Endpoints: []string{"http://127.0.0.1:1"}, CACert: cfg.CACert},
		"no such file":          {Endpoints: cfg.Endpoints, CACert: file("none.pem")},
		"not PEM":               {Endpoints: cfg.Endpoints, CACert: os.Args[0]},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		two, err := etcd.Dial(ctx, bad)
		cancel()
		if err == nil {
			two.Close()
			t.Errorf("%s: connected", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than one line: %v", name, err)
		}
	}
}

// TestOutage: a store whose etcd was away for a while carries on, watches included, and loses nothing.
func TestOutage(t *testing.T) {
	s := startServer(t, "")
	one := dial(t, etcd.Config{Endpoints: []string{s.url}})
	w, err := one.Watch(t.Context(), "Service", 0)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, d time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		_, err := one.Put(ctx, store.Object{Key: store.Key{Kind: "Service", Name: name}}, store.Any)
		return err
	}
	if err := put("before", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if err := put("during", 500*time.Millisecond); err == nil || strings.Contains(err.Error(), "\n") {
		t.Fatalf("a write without etcd: %v", err)
	}
	s.start(t)
	deadline := time.Now().Add(20 * time.Second)
	for err = put("after", 5*time.Second); err != nil; err = put("after", 5*time.Second) {
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	timeout := time.After(20 * time.Second)
	for seen := ""; seen != "after"; {
		select {
		case batch, ok := <-w.Events():
			if !ok {
				t.Fatalf("the watch ended: %v", w.Err())
			}
			seen = batch[len(batch)-1].Name
		case <-timeout:
			t.Fatalf("the watch has seen nothing after %q", seen)
		}
	}
}

func TestDialNobody(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	where := freePort(t)
	_, err := etcd.Dial(ctx, etcd.Config{Endpoints: []string{where}})
	if err == nil || !strings.Contains(err.Error(), where) || !strings.Contains(err.Error(), "--etcd-endpoints") {
		t.Fatalf("%v", err)
	}
}

// certificates answers a folder with an authority and one pair for both sides.
func certificates(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "etcd"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	write("ca.pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)))
	write("cert.pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)))
	write("key.pem", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
	return dir
}
