package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"
)

// backendConf is nginx answering 100 bytes. It listens on one address.
const backendConf = `worker_processes 2; daemon off; pid %s/backend.pid; error_log /dev/null;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; server { listen %s; location / { return 200 "%s"; } } }
`

func (w *world) backendConf(listen string) string {
	return w.file("backend.conf", fmt.Sprintf(backendConf, w.dir, listen, strings.Repeat("x", 100)))
}

func (w *world) backend() (string, error) {
	addr := freePort()
	if _, err := w.start("nginx", "-c", w.backendConf(addr)); err != nil {
		return "", err
	}
	return addr, waitFor(addr)
}

// hopSubjects are the proxies in front of one backend, in the clear.
func hopSubjects() []subject {
	return []subject{
		{"haproxy tcp (raw relay)", func(_ options, w *world) (running, error) { return haproxy(w, "tcp") }},
		{"haproxy http", func(_ options, w *world) (running, error) { return haproxy(w, "http") }},
		{"nginx", nginxHop},
		{"httputil.ReverseProxy", reverseProxyHop},
		{"tulle", tulleHop},
	}
}

func haproxy(w *world, mode string) (running, error) {
	backend, err := w.backend()
	if err != nil {
		return running{}, err
	}
	addr := freePort()
	conf := w.file("haproxy.cfg", fmt.Sprintf(`global
  nbthread 2
  maxconn 4096
defaults
  mode %s
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind %s
  default_backend b
backend b
  http-reuse always
  server s %s
`, mode, addr, backend))
	p, err := w.start("haproxy", "-db", "-f", conf)
	if err != nil {
		return running{}, err
	}
	return running{url: "http://" + addr + "/", pids: []int{p.Process.Pid}}, waitFor(addr)
}

const nginxProxy = `worker_processes 2; daemon off; pid %[1]s/%[2]s.pid; error_log %[1]s/%[2]s.err;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000;
  upstream b { server %[4]s; keepalive 256; keepalive_requests 1000000000; }
  server { listen %[3]s; %[5]s
    location / { proxy_pass %[6]s://b; proxy_http_version 1.1; proxy_set_header Connection ""; %[7]s } } }
`

func nginxHop(_ options, w *world) (running, error) {
	backend, err := w.backend()
	if err != nil {
		return running{}, err
	}
	addr := freePort()
	p, err := w.start("nginx", "-c", w.file("proxy.conf", fmt.Sprintf(nginxProxy, w.dir, "proxy", addr, backend, "", "http", "")))
	if err != nil {
		return running{}, err
	}
	return running{url: "http://" + addr + "/", pids: []int{p.Process.Pid}}, waitFor(addr)
}

func reverseProxyHop(_ options, w *world) (running, error) {
	backend, err := w.backend()
	if err != nil {
		return running{}, err
	}
	addr := freePort()
	p, err := w.start(os.Args[0], "-reverseproxy", addr+","+backend)
	if err != nil {
		return running{}, err
	}
	return running{url: "http://" + addr + "/", pids: []int{p.Process.Pid}}, waitFor(addr)
}

// reverseProxy is what thirty lines of Go give, with a connection pool that is not its handicap.
func reverseProxy(listen, target string) error {
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target})
	p.Transport = &http.Transport{MaxIdleConnsPerHost: 512}
	return http.ListenAndServe(listen, p)
}

// mtlsSubjects are two proxies, with mTLS between them, in front of one backend.
func mtlsSubjects() []subject {
	return []subject{
		{"haproxy + haproxy", haproxyPair},
		{"nginx + nginx", nginxPair},
		{"tulle + tulle", tullePair},
	}
}

func nginxPair(_ options, w *world) (running, error) {
	backend, err := w.backend()
	if err != nil {
		return running{}, err
	}
	if err := w.certificates(); err != nil {
		return running{}, err
	}
	front, back := freePort(), freePort()
	server := fmt.Sprintf("ssl_certificate %[1]s/leaf.pem; ssl_certificate_key %[1]s/leaf.key; ssl_client_certificate %[1]s/ca.pem; ssl_verify_client on; ssl_protocols TLSv1.3;", w.dir)
	client := fmt.Sprintf("proxy_ssl_certificate %[1]s/leaf.pem; proxy_ssl_certificate_key %[1]s/leaf.key; proxy_ssl_trusted_certificate %[1]s/ca.pem; proxy_ssl_verify on; proxy_ssl_name bench; proxy_ssl_protocols TLSv1.3;", w.dir)
	b, err := w.start("nginx", "-c", w.file("back.conf", fmt.Sprintf(nginxProxy, w.dir, "back", back+" ssl", backend, server, "http", "")))
	if err != nil {
		return running{}, err
	}
	f, err := w.start("nginx", "-c", w.file("front.conf", fmt.Sprintf(nginxProxy, w.dir, "front", front, back, "", "https", client)))
	if err != nil {
		return running{}, err
	}
	if err := waitFor(back); err != nil {
		return running{}, err
	}
	return running{url: "http://" + front + "/", pids: []int{f.Process.Pid, b.Process.Pid}}, waitFor(front)
}

func haproxyPair(_ options, w *world) (running, error) {
	backend, err := w.backend()
	if err != nil {
		return running{}, err
	}
	if err := w.certificates(); err != nil {
		return running{}, err
	}
	front, back := freePort(), freePort()
	const conf = `global
  nbthread 2
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind %s
  default_backend b
backend b
  http-reuse always
  server s %s
`
	b, err := w.start("haproxy", "-db", "-f", w.file("back.cfg", fmt.Sprintf(conf,
		fmt.Sprintf("%s ssl crt %[2]s/both.pem ca-file %[2]s/ca.pem verify required ssl-min-ver TLSv1.3", back, w.dir), backend)))
	if err != nil {
		return running{}, err
	}
	f, err := w.start("haproxy", "-db", "-f", w.file("front.cfg", fmt.Sprintf(conf, front,
		fmt.Sprintf("%s ssl crt %[2]s/both.pem ca-file %[2]s/ca.pem verify required verifyhost bench", back, w.dir))))
	if err != nil {
		return running{}, err
	}
	if err := waitFor(back); err != nil {
		return running{}, err
	}
	return running{url: "http://" + front + "/", pids: []int{f.Process.Pid, b.Process.Pid}}, waitFor(front)
}

// certificates writes a CA and one P-256 leaf for the peers: ca.pem, leaf.pem, leaf.key, both.pem.
func (w *world) certificates() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "bench"}, DNSNames: []string{"bench"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	enc := func(typ string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
	}
	w.file("ca.pem", enc("CERTIFICATE", caDER))
	w.file("leaf.pem", enc("CERTIFICATE", leafDER))
	w.file("leaf.key", enc("EC PRIVATE KEY", keyDER))
	w.file("both.pem", enc("CERTIFICATE", leafDER)+enc("EC PRIVATE KEY", keyDER))
	return nil
}
