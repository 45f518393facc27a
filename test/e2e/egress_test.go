//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// outsideCA makes certificates that the mesh knows nothing of; it answers the authority's PEM, a server's certificate for
// pay.example, and the PEM of a client's certificate and key.
func outsideCA(t *testing.T) (root string, server tls.Certificate, cert, key string) {
	make := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			parent, signer = template, k
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &k.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, k
	}
	text := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	ca, cak := make(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "outside"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	s, sk := make(&x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{"pay.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca, cak)
	c, ck := make(&x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "shop"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, cak)
	der, err := x509.MarshalECPrivateKey(ck)
	if err != nil {
		t.Fatal(err)
	}
	return text("CERTIFICATE", ca.Raw), tls.Certificate{Certificate: [][]byte{s.Raw}, PrivateKey: sk}, text("CERTIFICATE", c.Raw), text("EC PRIVATE KEY", der)
}

// listenOutside answers a listener on the machine's loopback, which programs reach through an ExternalService alone.
func listenOutside(t *testing.T) (net.Listener, string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, portOf(l.Addr().String())
}

// TestEgress: what is outside of the mesh is a service like others where it is written down, and nothing where only that may be
// reached.
func TestEgress(t *testing.T) {
	host := machineAddress(t)
	if host == "" {
		t.Fatal("TestEgress needs an address that is not the loopback's: connect the machine to a network")
	}
	m := newMesh(t)
	root, certificate, cert, key := outsideCA(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(root))
	secure, securePort := listenOutside(t)
	pay := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s of %s to %s", r.Method, r.TLS.PeerCertificates[0].Subject.CommonName, r.TLS.ServerName, r.Host)
	})}
	go pay.Serve(tls.NewListener(secure, &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, NextProtos: []string{"http/1.1"}}))
	defer pay.Close()
	database, databasePort := listenOutside(t)
	go func() {
		for {
			c, err := database.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "database speaks first\n") // as MySQL does
			c.Close()
		}
	}()
	open, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	other := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "somewhere else") })}
	go other.Serve(open)
	defer other.Close()
	certFile, keyFile := writeFile(t, filepath.Join(m.dir, "pay.pem"), cert), writeFile(t, filepath.Join(m.dir, "pay.key"), key)

	m.apply(fmt.Sprintf(`apiVersion: tulle.dev/v1alpha1
kind: ExternalService
metadata: {name: pay}
spec:
  hosts: [pay.example]
  ports:
  - port: 80
    protocol: http
    targetPort: %s
    tls:
      certificateFile: %s
      keyFile: %s
      caCertificates: |
%s
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: tulle.dev/v1alpha1
kind: ExternalService
metadata: {name: database}
spec:
  hosts: [db.example]
  ports: [{port: 3306, protocol: tcp, targetPort: %s}]
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {egress: {mode: Registry}}
`, securePort, certFile, keyFile, "        "+strings.ReplaceAll(strings.TrimSpace(root), "\n", "\n        "), databasePort))

	if got := m.curl("http://pay.example/charge"); got != "GET shop of pay.example to pay.example" {
		t.Errorf("TLS that the proxy begins: %s", got)
	}
	if r := m.call(self(t), "dial", "db.example:3306"); !strings.Contains(r.stdout, "database speaks first") {
		t.Errorf("a database: %s", r)
	}
	code := func(flags []string, args ...string) string {
		r := m.finish(m.runCommand(append([]string{"--service", "shell"}, flags...), append([]string{"curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %header{tulle-reason}", "--max-time", "10"}, args...)...))
		return r.stdout
	}
	if got := code(nil, "-H", "Host: evil.example", "http://pay.example/"); got != "403 egress_denied" {
		t.Errorf("another host at the same address: %s", got)
	}
	if got := code(nil, "http://"+open.Addr().String()+"/"); got != "403 egress_denied" {
		t.Errorf("what nobody has written down: %s", got)
	}
	if r := m.call(self(t), "dial", open.Addr().String()); !strings.HasPrefix(r.stdout, "ECONNRESET") || !strings.Contains(r.stderr, `policy="MeshConfig/mesh mode Registry"`) || !strings.Contains(r.stderr, "address="+open.Addr().String()) {
		t.Errorf("likewise, not HTTP, and the log says why: %s", r)
	}
	if got := m.ok(m.cli("get", "externalservices")); !strings.Contains(got, "pay.example") || !strings.Contains(got, "198.18.") {
		t.Errorf("tulle get externalservices: %s", got)
	}
	if got := m.ok(m.cli("get", "externalservices", "-o", "yaml")); strings.Contains(got, strings.Split(key, "\n")[1]) {
		t.Error("the private key is shown")
	}

	m.apply(`apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: pay}
spec:
  targetRefs: [{group: tulle.dev, kind: ExternalService, name: pay}]
  rules:
  - from: [{serviceAccounts: [cashier]}]
    to: [{methods: [GET]}]
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: database}
spec:
  targetRefs: [{group: tulle.dev, kind: ExternalService, name: database}]
  action: Deny
  rules:
  - from: [{serviceAccounts: [shell]}]
---
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {egress: {mode: Registry, rules: [{action: Allow, services: [shell], addresses: [` + host + `]}]}}
`)
	eventually(t, patience, "the policies are in force", func() error {
		if got := code(nil, "http://pay.example/"); got != "403 egress_denied" {
			return errors.New(got)
		}
		return nil
	})
	if got := code([]string{"--service-account", "cashier"}, "http://pay.example/"); got != "200 " {
		t.Errorf("who may pay: %s", got)
	}
	if got := code([]string{"--service-account", "cashier"}, "-X", "POST", "http://pay.example/"); got != "403 egress_denied" {
		t.Errorf("who may not post: %s", got)
	}
	if r := m.call(self(t), "dial", "db.example:3306"); !strings.HasPrefix(r.stdout, "ECONNRESET") {
		t.Errorf("the database, to whom it is denied: %s", r)
	}
	if got := code(nil, "http://"+open.Addr().String()+"/"); got != "200 " {
		t.Errorf("an address that a rule allows: %s", got)
	}
	m.foretold(false, false, "--from", "shell", "--to", "pay.example", "--path", "/")
	m.foretold(true, false, "--from", "cashier", "--to", "pay", "--path", "/")
	m.foretold(false, false, "--from", "cashier", "--to", "pay", "--method", "POST")
	m.foretold(false, false, "--from", "shell", "--to", "external~database")
	m.foretold(true, false, "--from", "shell", "--to", host, "--port", "80")
	m.foretold(false, false, "--from", "cashier", "--to", host, "--port", "80")
	// What a program could not reach is explained, as long as its proxy is there.
	stays := m.run([]string{"--service", "stays"}, "sh", "-c", "for u in http://pay.example/ http://"+open.Addr().String()+"/; do curl -s -o /dev/null -w 'got %{http_code}\\n' $u; done; exec sleep 60")
	eventually(t, patience, "both are refused", func() error {
		if got := stays.stdout(); strings.Count(got, "got 403") != 2 {
			return errors.New(got)
		}
		return nil
	})
	said := m.ok(m.cli("explain", "--service", "stays", "--denied"))
	for _, part := range []string{"GET / of " + open.Addr().String() + " outside of the mesh", "refused   by MeshConfig/mesh mode Registry: ", "nearest   AuthorizationPolicy/default/pay rules[0]: "} {
		if !strings.Contains(said, part) {
			t.Errorf("without %q:\n%s", part, said)
		}
	}
	stays.stop(patience)

	// What is open only by a rule ends with it.
	feed, feedPort := listenOutside(t)
	go func() {
		for {
			c, err := feed.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			io.WriteString(c, "the first line\n")
		}
	}()
	m.apply(fmt.Sprintf(`apiVersion: tulle.dev/v1alpha1
kind: ExternalService
metadata: {name: feed}
spec:
  hosts: [feed.example]
  ports: [{port: 7000, protocol: tcp, targetPort: %s}]
  endpoints: [{address: 127.0.0.1}]
`, feedPort))
	reader := m.run([]string{"--service", "reader"}, "sh", "-c", "nc feed.example 7000; echo it has ended; exec sleep 60")
	eventually(t, patience, "it is read", func() error {
		if got := reader.stdout(); got != "the first line\n" {
			return errors.New(got)
		}
		return nil
	})
	over := time.Now().Add(3 * time.Second).Truncate(time.Second)
	m.apply(`apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: feed}
spec:
  targetRefs: [{group: tulle.dev, kind: ExternalService, name: feed}]
  rules: [{from: [{serviceAccounts: [reader]}], notAfter: "` + over.UTC().Format(time.RFC3339) + `"}]
`)
	if strings.Contains(reader.stdout(), "ended") && time.Now().Before(over) {
		t.Error("it has ended while it was allowed")
	}
	eventually(t, 5*time.Second, "it ends when the rule does", func() error {
		if got := reader.stdout(); !strings.Contains(got, "ended") {
			return errors.New(got)
		}
		return nil
	})
}
