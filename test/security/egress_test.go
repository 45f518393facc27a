//go:build e2e

package security

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Ways out of the mesh that a program may try by what it says: another Host, another server name, another address. egressMain is that
// program; it prints what became of each.

// out is where egressMain goes: the ports of ExternalServices and of the machine.
type out struct {
	web, tls, free string
	conns          *atomic.Int64 // that are open at web
}

func egressMain(args []string) error {
	o := out{web: args[1], tls: args[2], free: args[3]}
	switch args[0] {
	case "hold":
		return o.hold()
	case "tricks":
		o.virtual()
		o.original(args[4])
	case "alone":
		o.alone()
	}
	return nil
}

func say(name, got string) { fmt.Printf("%s: %s\n", name, got) }

// ask sends requests over one connection and answers their statuses.
func ask(at string, requests ...string) string {
	c, err := net.DialTimeout("tcp", at, patience)
	if err != nil {
		return refusal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	var all []string
	for _, text := range requests {
		if _, err := io.WriteString(c, text); err != nil {
			return strings.Join(append(all, refusal(err)), " ")
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return strings.Join(append(all, refusal(err)), " ")
		}
		_, _ = io.Copy(io.Discard, res.Body)
		what := fmt.Sprint(res.StatusCode)
		if reason := res.Header.Get("Tulle-Reason"); reason != "" {
			what += "/" + reason
		}
		all = append(all, what)
	}
	return strings.Join(all, " ")
}

// refusal is an error without its addresses.
func refusal(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return "no address"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "silence"
	}
	return "refused"
}

// beginTLS begins TLS with a server name, "" for none, cut into pieces that are sent slowly.
func beginTLS(at, name string, pieces int) string {
	c, err := net.DialTimeout("tcp", at, patience)
	if err != nil {
		return refusal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	s := tls.Client(slowly{c, pieces}, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := s.Handshake(); err != nil {
		return refusal(err)
	}
	return "open"
}

// slowly writes in pieces.
type slowly struct {
	net.Conn
	pieces int
}

func (s slowly) Write(p []byte) (n int, err error) {
	step := len(p)/s.pieces + 1
	for len(p) > 0 && err == nil {
		var m int
		m, err = s.Conn.Write(p[:min(step, len(p))])
		n, p = n+m, p[m:]
	}
	return n, err
}

func request(host, more string) string {
	return "GET / HTTP/1.1\r\nHost: " + host + "\r\n" + more + "\r\n"
}

// virtual tries what leads to virtual addresses.
func (o out) virtual() {
	at := "open.example:" + o.web
	say("its own host", ask(at, request("open.example", "")))
	say("in capitals, with a dot and a port", ask(at, request("OPEN.example.:"+o.web, "")))
	say("another host", ask(at, request("evil.example", "")))
	say("another host on the second request", ask(at, request("open.example", ""), request("evil.example", ""), request("open.example", "")))
	say("another host in the target", ask(at, "GET http://evil.example/ HTTP/1.1\r\nHost: open.example\r\n\r\n"))
	say("two hosts", ask(at, request("open.example", "Host: evil.example\r\n")))
	say("two hosts, ours last", ask(at, request("evil.example", "Host: open.example\r\n")))
	say("a blank behind the host", ask(at, request("open.example evil.example", "")))
	say("a user before the host", ask(at, request("open.example@evil.example", "")))
	say("a host below", ask(at, request("x.open.example", "")))
	say("a host with more behind", ask(at, request("open.example.evil.example", "")))
	say("no host", ask(at, "GET / HTTP/1.0\r\n\r\n"))
	say("a connect", ask(at, "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"))
	say("a forwarded host", ask(at, request("open.example", "X-Forwarded-Host: evil.example\r\n")))
	at = "safe.example:" + o.tls
	say("its own name", beginTLS(at, "safe.example", 1))
	say("its own name in pieces", beginTLS(at, "safe.example", 7))
	say("its own name in capitals", beginTLS(at, "SAFE.example", 1))
	say("another name", beginTLS(at, "evil.example", 1))
	say("another name in pieces", beginTLS(at, "evil.example", 7))
	say("a name below", beginTLS(at, "x.safe.example", 1))
	say("no name", beginTLS(at, "", 1))
	say("no TLS", ask(at, request("safe.example", "")))
}

// original tries what leads to addresses; host has what several names stand for.
func (o out) original(host string) {
	secure, web := net.JoinHostPort(host, o.tls), net.JoinHostPort(host, o.web)
	say("an address that no name has", beginTLS(secure, "a.cloud.example", 1))
	say("an address that no name has, HTTP", ask(web, request("a.cloud.example", "")))
	_, _ = net.LookupHost("other.example") // which is nobody's
	say("an address by a name that is nobody's", beginTLS(secure, "a.cloud.example", 1))
	say("an address by a name that is nobody's, HTTP", ask(web, request("a.cloud.example", "")))
	say("a name that is nobody's", ask("other.example:"+o.web, request("other.example", "")))
	say("a wildcard at a shared address", beginTLS("a.cloud.example:"+o.tls, "a.cloud.example", 1))
	say("in pieces", beginTLS("a.cloud.example:"+o.tls, "a.cloud.example", 5))
	say("the other name of the address", beginTLS("a.cloud.example:"+o.tls, "other.example", 1))
	say("a name that was not looked up", beginTLS("a.cloud.example:"+o.tls, "b.cloud.example", 1))
	say("no name at a shared address", beginTLS("a.cloud.example:"+o.tls, "", 1))
	say("a wildcard at a shared address, HTTP", ask("a.cloud.example:"+o.web, request("a.cloud.example", "")))
	say("the other host of the address", ask("a.cloud.example:"+o.web, request("other.example", "")))
	say("the other host on the second request", ask("a.cloud.example:"+o.web, request("a.cloud.example", ""), request("other.example", "")))
	say("the bare domain", ask("cloud.example:"+o.web, request("cloud.example", "")))
	say("another port", ask("a.cloud.example:"+o.free, request("a.cloud.example", "")))
}

// alone tries what leads to an address that only names of the ExternalService stand for.
func (o out) alone() {
	say("a wildcard", beginTLS("a.cloud.example:"+o.tls, "a.cloud.example", 1))
	say("another name below", beginTLS("a.cloud.example:"+o.tls, "b.cloud.example", 1))
	say("another name", beginTLS("a.cloud.example:"+o.tls, "evil.example", 1))
	say("no name", beginTLS("a.cloud.example:"+o.tls, "", 1))
	say("no TLS", ask("a.cloud.example:"+o.tls, request("a.cloud.example", "")))
	say("HTTP", ask("a.cloud.example:"+o.web, request("a.cloud.example", ""), request("deep.below.cloud.example", ""), request("other.example", "")))
}

// hold keeps connections open, and tells when they end.
func (o out) hold() error {
	if got := ask("open.example:"+o.web, request("open.example", "")); got != "200" { // its proxy keeps the connection for the next one
		return errors.New(got)
	}
	var wg sync.WaitGroup
	for _, name := range []string{"safe.example", "a.cloud.example"} {
		c, err := tls.Dial("tcp", net.JoinHostPort(name, o.tls), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		say(name, "open")
		wg.Go(func() {
			_, _ = c.Read(make([]byte, 1)) // it is over then, however
			say(name, "over")
		})
	}
	wg.Wait()
	return nil
}

// egress runs the tricks in a mesh where only what is written down may be reached.
func egress(t *testing.T, m *mesh) {
	host := machineAddress(t)
	far := farAway(t, host)
	resolver := names(t, host)
	apply := func(text string) {
		t.Helper()
		c := exec.Command(m.tulle, "apply", "-f", "-", "--wait", "10s", "--data-dir", m.data)
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	apply(fmt.Sprintf(`apiVersion: tulle.dev/v1alpha1
kind: ExternalService
metadata: {name: open}
spec:
  hosts: [open.example]
  ports: [{port: %[2]s, protocol: http}]
  endpoints: [{address: %[1]s}]
---
apiVersion: tulle.dev/v1alpha1
kind: ExternalService
metadata: {name: safe}
spec:
  hosts: [safe.example]
  ports: [{port: %[3]s, protocol: tls}]
  endpoints: [{address: %[1]s}]
---
apiVersion: tulle.dev/v1alpha1
kind: ExternalService
metadata: {name: cloud}
spec:
  hosts: ["*.cloud.example"]
  ports: [{name: web, port: %[2]s, protocol: http}, {name: own, port: %[3]s, protocol: tls}]
---
apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {egress: {mode: Registry}}
`, host, far.web, far.tls))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(name, phase string, more ...string) *exec.Cmd {
		c := exec.Command(m.tulle, append([]string{"run", "--data-dir", m.data, "--service", name, "--resolver", resolver, "--", self, "egress", phase, far.web, far.tls, far.free}, more...)...)
		c.Env, c.Stderr = append(os.Environ(), "XDG_STATE_HOME="+m.dir), os.Stderr
		return c
	}
	for phase, table := range map[string]string{"tricks": tricks, "alone": aloneTricks} {
		text, err := run("shell", phase, host).Output()
		if err != nil {
			t.Fatalf("%s: %v", phase, err)
		}
		got := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, what, _ := strings.Cut(strings.TrimSpace(line), ": ")
			got[name] = what
		}
		n := 0
		for line := range strings.Lines(strings.TrimSpace(table)) {
			name, want, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if n++; got[name] != want {
				t.Errorf("%s, %s: %q, want %q", phase, name, got[name], want)
			}
		}
		if n != len(got) {
			t.Errorf("%s: %d outcomes, %d are expected: %s", phase, len(got), n, text)
		}
	}
	revoked(t, m, run("holder", "hold"), apply, far.conns)
	if err := m.canary(); err != nil {
		t.Error(err)
	}
}

const tricks = `its own host: 200
in capitals, with a dot and a port: 200
another host: 403/egress_denied
another host on the second request: 200 403/egress_denied 200
another host in the target: 403/egress_denied
two hosts: 400/bad_request
two hosts, ours last: 400/bad_request
a blank behind the host: 400/bad_request
a user before the host: 400/bad_request
a host below: 403/egress_denied
a host with more behind: 403/egress_denied
no host: 403/egress_denied
a connect: 403/egress_denied
a forwarded host: 200
its own name: open
its own name in pieces: open
its own name in capitals: open
another name: refused
another name in pieces: refused
a name below: refused
no name: refused
no TLS: refused
an address that no name has: refused
an address that no name has, HTTP: 403/egress_denied
an address by a name that is nobody's: refused
an address by a name that is nobody's, HTTP: 403/egress_denied
a name that is nobody's: 403/egress_denied
a wildcard at a shared address: open
in pieces: open
the other name of the address: refused
a name that was not looked up: refused
no name at a shared address: refused
a wildcard at a shared address, HTTP: 200
the other host of the address: 403/egress_denied
the other host on the second request: 200 403/egress_denied
the bare domain: 403/egress_denied
another port: 403/egress_denied
`

const aloneTricks = `a wildcard: open
another name below: open
another name: refused
no name: refused
no TLS: refused
HTTP: 200 200 403/egress_denied
`

// revoked: who may not go somewhere any more loses the connections that he has there within a second, those that wait for another
// request too, and no others.
func revoked(t *testing.T, m *mesh, c *exec.Cmd, apply func(string), idle *atomic.Int64) {
	m.eventually("the connections of those before are over", func() error { return conns(idle, 0) })
	text, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	forks <- func() { failed <- c.Start() }
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 16)
	go func() {
		defer close(said)
		for s := bufio.NewScanner(text); s.Scan(); {
			said <- s.Text()
		}
	}()
	next := func(within time.Duration) string {
		select {
		case s := <-said:
			return s
		case <-time.After(within):
			return ""
		}
	}
	for range 2 {
		if s := next(patience); !strings.HasSuffix(s, ": open") {
			t.Fatalf("the holder says %q", s)
		}
	}
	if err := conns(idle, 1); err != nil {
		t.Error(err)
	}
	apply(`apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: open-no-more}
spec:
  targetRefs: [{group: tulle.dev, kind: ExternalService, name: open}]
  action: Deny
  rules: [{from: [{serviceAccounts: [holder]}]}]
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: safe-no-more}
spec:
  targetRefs: [{group: tulle.dev, kind: ExternalService, name: safe}]
  action: Deny
  rules: [{from: [{serviceAccounts: [holder]}]}]
`)
	// apply has waited until it is in force; a busy machine may take longer than the second that is promised.
	if s := next(patience); s != "safe.example: over" {
		t.Errorf("after the policy the holder says %q", s)
	}
	if s := next(500 * time.Millisecond); s != "" {
		t.Errorf("the other connection is touched: %q", s)
	}
	m.eventually("the idle connection is over", func() error { return conns(idle, 0) })
	apply(`apiVersion: tulle.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {egress: {mode: Registry}}
---
apiVersion: tulle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: cloud-no-more}
spec:
  targetRefs: [{group: tulle.dev, kind: ExternalService, name: cloud}]
  action: Deny
  rules: [{from: [{serviceAccounts: [holder]}]}]
`)
	if s := next(patience); s != "a.cloud.example: over" {
		t.Errorf("after the second policy the holder says %q", s)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

func conns(n *atomic.Int64, want int64) error {
	if got := n.Load(); got != want {
		return fmt.Errorf("%d connections are open, not %d", got, want)
	}
	return nil
}

// farAway answers servers on an address of the machine.
func farAway(t *testing.T, host string) out {
	listen := func() (net.Listener, string) {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		_, port, _ := net.SplitHostPort(l.Addr().String())
		return l, port
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"far.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	o := out{conns: new(atomic.Int64)}
	for port, secure := range map[*string]bool{&o.web: false, &o.tls: true, &o.free: false} {
		l, n := listen()
		*port = n
		s := &http.Server{Handler: hello}
		if port == &o.web {
			s.ConnState = func(_ net.Conn, now http.ConnState) {
				switch now {
				case http.StateNew:
					o.conns.Add(1)
				case http.StateClosed:
					o.conns.Add(-1)
				}
			}
		}
		if secure {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		}
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
	}
	return o
}

// names starts a name server for which every name below example is at host; it answers its address.
func names(t *testing.T, host string) string {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA && strings.HasSuffix(q.Name.String(), ".example.") {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: [4]byte(net.ParseIP(host).To4())}}}
			}
			if text, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(text, from)
			}
		}
	}()
	return c.LocalAddr().String()
}

// machineAddress answers an address of the machine that is not its loopback's.
func machineAddress(t *testing.T) string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Fatal("the machine has no address but its loopback's: connect it to a network")
	return ""
}
