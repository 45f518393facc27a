//go:build e2e

package security

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/identity/attest/attestpb"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// authority is the mesh's own, taken from its folder: what a thief of it could sign is refused all the same where it is no identity.
type authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	chain [][]byte // from the signer on
}

func steal(t *testing.T, m *mesh) authority {
	files, _ := filepath.Glob(filepath.Join(m.data, "ca", "intermediate*.pem"))
	if len(files) != 1 {
		t.Fatalf("intermediates: %v", files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var a authority
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if b.Type == "CERTIFICATE" {
			a.chain = append(a.chain, b.Bytes)
			continue
		}
		k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
		if err != nil {
			if k, err = x509.ParseECPrivateKey(b.Bytes); err != nil {
				t.Fatal(err)
			}
		}
		a.key = k.(crypto.Signer)
	}
	if a.cert, err = x509.ParseCertificate(a.chain[0]); err != nil {
		t.Fatal(err)
	}
	return a
}

// sign answers a certificate that change has made of a good one of the service account web.
func (a authority) sign(t *testing.T, change func(c *x509.Certificate)) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), URIs: uris("spiffe://tulle.local/ns/default/sa/web"),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, a.chain...), PrivateKey: key}
}

func uris(list ...string) (out []*url.URL) {
	for _, s := range list {
		u, _ := url.Parse(s)
		out = append(out, u)
	}
	return out
}

// own makes an authority that nobody believes.
func own(t *testing.T) authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tulle"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: uris("spiffe://tulle.local")}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{key: key, chain: [][]byte{der}}
	a.cert, _ = x509.ParseCertificate(der)
	return a
}

// shake answers "in" if the workload's proxy speaks with us, "refused" otherwise.
func shake(m *mesh, c *tls.Config) string {
	c.InsecureSkipVerify = true
	raw, err := net.DialTimeout("tcp", m.peer, 2*time.Second)
	if err != nil {
		return err.Error()
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(2 * time.Second))
	conn := tls.Client(raw, c)
	if conn.Handshake() != nil {
		return "refused"
	}
	_, _ = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	p := make([]byte, 9)
	if _, err := io.ReadFull(conn, p); err != nil {
		return "refused"
	}
	return "in"
}

// certificates is tricks with SPIFFE and TLS on the port for proxies.
func certificates(t *testing.T, m *mesh) (rows []row) {
	ca := steal(t, m)
	sni := "p8080." + m.workload + ".default.mesh.tulle"
	config := func(cert *tls.Certificate) *tls.Config {
		c := &tls.Config{ServerName: sni, NextProtos: []string{"tulle/1"}}
		if cert != nil {
			c.Certificates = []tls.Certificate{*cert}
		}
		return c
	}
	add := func(name, want string, c *tls.Config) {
		rows = append(rows, row{name: "mesh port: " + name, want: []string{want}, hidden: true, try: func(m *mesh) string { return shake(m, c) }})
	}
	good := func(*x509.Certificate) {}
	add("an honest peer", "in", config(ca.sign(t, good)))
	for name, change := range map[string]func(c *x509.Certificate){
		"another trust domain": func(c *x509.Certificate) { c.URIs = uris("spiffe://evil.local/ns/default/sa/web") }, "two URIs": func(c *x509.Certificate) {
			c.URIs = uris("spiffe://tulle.local/ns/default/sa/web", "spiffe://tulle.local/ns/default/sa/admin")
		},
		"no URI": func(c *x509.Certificate) { c.URIs = nil }, "no SPIFFE ID": func(c *x509.Certificate) { c.URIs = uris("https://tulle.local/ns/default/sa/web") }, "name instead of a URI": func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"web.default"} },
		"ID with a query": func(c *x509.Certificate) { c.URIs = uris("spiffe://tulle.local/ns/default/sa/web?x=1") }, "ID with a fragment": func(c *x509.Certificate) { c.URIs = uris("spiffe://tulle.local/ns/default/sa/web#x") }, "ID with a port": func(c *x509.Certificate) { c.URIs = uris("spiffe://tulle.local:1/ns/default/sa/web") },
		"ID with a user": func(c *x509.Certificate) { c.URIs = uris("spiffe://a@tulle.local/ns/default/sa/web") }, "ID with dots": func(c *x509.Certificate) { c.URIs = uris("spiffe://tulle.local/ns/default/sa/x/../web") }, "ID with an escape": func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "tulle.local", Opaque: "//tulle.local/ns/default/sa/%77eb"}}
		},
		"ID without a path": func(c *x509.Certificate) { c.URIs = uris("spiffe://tulle.local") }, "ID that is too long": func(c *x509.Certificate) {
			c.URIs = uris("spiffe://tulle.local/ns/default/sa/" + strings.Repeat("x", 3000))
		},
		"signs others": func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }, "may sign": func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "expired": func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		},
		"not yet valid": func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		},
		"for servers alone": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "for mail": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} },
		"unknown critical extension": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		},
	} {
		add(name, "refused", config(ca.sign(t, change)))
	}
	mine := own(t)
	add("signed by nobody", "refused", config(mine.sign(t, good)))
	both := mine.sign(t, good)
	both.Certificate = append(both.Certificate[:1], ca.chain...)
	add("foreign leaf with our chain", "refused", config(both))
	below := ca.sign(t, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
	leaf, _ := x509.ParseCertificate(below.Certificate[0])
	add("signed by a leaf", "refused", config(authority{leaf, below.PrivateKey.(crypto.Signer), below.Certificate}.sign(t, good)))
	add("the authority itself", "refused", config(&tls.Certificate{Certificate: ca.chain, PrivateKey: ca.key}))
	stolen := *ca.sign(t, good)
	stolen.PrivateKey = mine.key
	add("key of another", "refused", config(&stolen))
	long := *ca.sign(t, good)
	for range 2000 { // beyond what a handshake takes, however it arrives
		long.Certificate = append(long.Certificate, mine.chain[0])
	}
	add("chain of 2000", "refused", config(&long))
	add("no certificate", "refused", config(nil))
	with := func(change func(c *tls.Config)) *tls.Config {
		c := config(ca.sign(t, good))
		change(c)
		return c
	}
	add("TLS 1.2", "refused", with(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }))
	add("no ALPN", "refused", with(func(c *tls.Config) { c.NextProtos = nil }))
	add("ALPN h2", "refused", with(func(c *tls.Config) { c.NextProtos = []string{"h2"} }))
	add("no server name", "refused", with(func(c *tls.Config) { c.ServerName = "" }))
	add("P-256 only", "refused", with(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }))
	for _, name := range []string{"p1." + m.workload + ".default.mesh.tulle", "p8080.other.default.mesh.tulle", "p8080." + m.workload + ".other.mesh.tulle", "p15000." + m.workload + ".default.mesh.tulle", "p99999." + m.workload + ".default.mesh.tulle", "target.default", "p-1." + m.workload + ".default.mesh.tulle"} {
		add("server name "+name, "refused", with(func(c *tls.Config) { c.ServerName = name }))
	}
	rows = append(rows, row{name: "mesh port: plaintext", want: []string{"refused"}, hidden: true, try: func(m *mesh) string {
		c, err := net.Dial("tcp", m.peer)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		fmt.Fprint(c, get+"\r\n")
		b, _ := io.ReadAll(c)
		if bytes.Contains(b, []byte("HTTP/1")) {
			return "answered"
		}
		return "refused"
	}})
	return rows
}

// call asks the control plane's port for proxies as whoever cert says, and answers the name of the gRPC code.
func call(m *mesh, cert *tls.Certificate, f func(ctx context.Context, c *grpc.ClientConn) error) string {
	t := &tls.Config{InsecureSkipVerify: true}
	if cert != nil {
		t.Certificates = []tls.Certificate{*cert}
	}
	c, err := grpc.NewClient("passthrough:///"+m.grpc, grpc.WithTransportCredentials(credentials.NewTLS(t)))
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return status.Code(f(ctx, c)).String()
}

var no = []string{codes.PermissionDenied.String(), codes.Unauthenticated.String(), codes.InvalidArgument.String(), codes.Unimplemented.String(), codes.ResourceExhausted.String(), codes.Unavailable.String()}

// controlPlane is what a proxy with a good identity of its own, or without one, asks for that is not its business.
func controlPlane(t *testing.T, m *mesh) (rows []row) {
	ca := steal(t, m)
	web := ca.sign(t, func(*x509.Certificate) {})
	add := func(name string, cert *tls.Certificate, f func(ctx context.Context, c *grpc.ClientConn) error) {
		rows = append(rows, row{name: "control plane: " + name, want: no, hidden: true, try: func(m *mesh) string { return call(m, cert, f) }})
	}
	join := func(h *tullepb.Hello) func(ctx context.Context, c *grpc.ClientConn) error {
		return func(ctx context.Context, c *grpc.ClientConn) error {
			s, err := tullepb.NewSessionClient(c).Join(ctx)
			if err != nil {
				return err
			}
			if err := s.Send(&tullepb.FromProxy{What: &tullepb.FromProxy_Hello{Hello: h}}); err != nil {
				_, err = s.Recv()
				return err
			}
			_, err = s.Recv()
			return err
		}
	}
	hello := func(change func(h *tullepb.Hello)) *tullepb.Hello {
		h := &tullepb.Hello{Workload: "web-1", Namespace: "default", Service: "web", ServiceAccount: "web", Address: "127.0.0.1:1"}
		change(h)
		return h
	}
	for name, h := range map[string]*tullepb.Hello{
		"announces another account": hello(func(h *tullepb.Hello) { h.ServiceAccount = "target" }), "announces another namespace": hello(func(h *tullepb.Hello) { h.Namespace = "other" }), "announces another service": hello(func(h *tullepb.Hello) { h.Service = m.service }),
		"announces another workload": hello(func(h *tullepb.Hello) { h.Workload, h.Service, h.ServiceAccount = m.workload, m.service, m.service }), "announces no address": hello(func(h *tullepb.Hello) { h.Address = "nowhere" }), "announces a long name": hello(func(h *tullepb.Hello) { h.Workload = strings.Repeat("x", 300) }),
		"announces 1000 ports": hello(func(h *tullepb.Hello) { h.Ports = make([]*tullepb.WorkloadPort, 1000) }), "announces port 70000": hello(func(h *tullepb.Hello) { h.Ports = []*tullepb.WorkloadPort{{Port: 70000, Target: 1}} }), "says nothing": nil,
		"announces a version of two lines": hello(func(h *tullepb.Hello) { h.Version = "1\r\nx: y" }), "announces a locality with NUL": hello(func(h *tullepb.Hello) { h.Labels = map[string]string{"topology.kubernetes.io/region": "eu\x00"} }),
	} {
		add(name, web, join(h))
	}
	add("announces without an identity", nil, join(hello(func(*tullepb.Hello) {})))
	add("announces with a foreign identity", own(t).sign(t, func(*x509.Certificate) {}), join(hello(func(*tullepb.Hello) {})))
	add("announces as an expired identity", ca.sign(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}), join(hello(func(*tullepb.Hello) {})))
	get := func(requests ...*discovery.DeltaDiscoveryRequest) func(ctx context.Context, c *grpc.ClientConn) error {
		return func(ctx context.Context, c *grpc.ClientConn) error {
			s, err := discovery.NewAggregatedDiscoveryServiceClient(c).DeltaAggregatedResources(ctx)
			if err != nil {
				return err
			}
			for _, r := range requests {
				if s.Send(r) != nil {
					break
				}
			}
			for {
				r, err := s.Recv()
				if status.Code(err) == codes.DeadlineExceeded {
					return status.Error(codes.PermissionDenied, "told of nothing")
				}
				if err != nil {
					return err
				}
				for _, one := range r.GetResources() {
					if strings.Contains(r.GetTypeUrl(), "Security") && one.GetName() != "web.default" {
						return nil // that is what must not be
					}
				}
				if len(r.GetRemovedResources()) > 0 || len(r.GetResources()) == 0 {
					return status.Error(codes.PermissionDenied, "told of nothing")
				}
			}
		}
	}
	const security = "type.googleapis.com/tulle.v1.Security"
	node := &core.Node{Id: "default/" + m.workload}
	add("asks without an identity", nil, get(&discovery.DeltaDiscoveryRequest{TypeUrl: security, ResourceNamesSubscribe: []string{"target.default"}}))
	add("asks for another's policies", web, get(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: security, ResourceNamesSubscribe: []string{"target.default"}}))
	add("asks for all policies", web, get(&discovery.DeltaDiscoveryRequest{TypeUrl: security, ResourceNamesSubscribe: []string{"*"}}))
	add("asks for a name of 2 KB", web, get(&discovery.DeltaDiscoveryRequest{TypeUrl: security, ResourceNamesSubscribe: []string{strings.Repeat("x", 2000)}}))
	add("asks for 20000 names", web, get(&discovery.DeltaDiscoveryRequest{TypeUrl: security, ResourceNamesSubscribe: numbered(20_000)}))
	add("a message of 2 MB", web, get(&discovery.DeltaDiscoveryRequest{TypeUrl: strings.Repeat("x", 2<<20)}))
	var types []*discovery.DeltaDiscoveryRequest
	for i := range 100 {
		types = append(types, &discovery.DeltaDiscoveryRequest{TypeUrl: fmt.Sprint("x", i), ResourceNamesSubscribe: []string{"a"}})
	}
	add("asks for 100 types", web, func(ctx context.Context, c *grpc.ClientConn) error {
		s, err := discovery.NewAggregatedDiscoveryServiceClient(c).DeltaAggregatedResources(ctx)
		if err != nil {
			return err
		}
		for _, r := range types {
			if s.Send(r) != nil {
				break
			}
		}
		for err == nil {
			_, err = s.Recv()
		}
		return err
	})
	add("the state of the world", web, func(ctx context.Context, c *grpc.ClientConn) error {
		s, err := discovery.NewAggregatedDiscoveryServiceClient(c).StreamAggregatedResources(ctx)
		if err == nil {
			_, err = s.Recv()
		}
		return err
	})
	add("an unknown method", web, func(ctx context.Context, c *grpc.ClientConn) error {
		return c.Invoke(ctx, "/tulle.v1.Session/Admin", &tullepb.Hello{}, &tullepb.Hello{})
	})
	for name, r := range map[string]*attestpb.AttestRequest{
		"attests without a token": {Namespace: "default", ServiceAccount: "target"}, "attests with a bad token": {Namespace: "default", ServiceAccount: "target", Token: "x.y.z"}, "attests with a long token": {Namespace: "default", ServiceAccount: "target", Token: strings.Repeat("x", 100_000)},
		"attests as the control plane": {Namespace: "tulle-system", ServiceAccount: "control", Token: "x"}, "attests with a bad name": {Namespace: "../x", ServiceAccount: "a/b", Token: "x"}, "attests as nobody": {},
	} {
		add(name, nil, func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := attestpb.NewIdentityClient(c).Attest(ctx, r)
			return err
		})
	}
	for name, csr := range map[string][]byte{"renews with noise": []byte("noise"), "renews with nothing": nil, "renews with a megabyte": make([]byte, 900<<10)} {
		add(name, web, func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := attestpb.NewIdentityClient(c).Renew(ctx, &attestpb.RenewRequest{Csr: csr})
			return err
		})
	}
	add("renews without an identity", nil, func(ctx context.Context, c *grpc.ClientConn) error {
		_, err := attestpb.NewIdentityClient(c).Renew(ctx, &attestpb.RenewRequest{})
		return err
	})
	return append(rows, withdrawn(t, m, ca, join)...)
}

// withdrawn is somebody whose identity was revoked, and join tokens that are not his.
func withdrawn(t *testing.T, m *mesh, ca authority, join func(*tullepb.Hello) func(context.Context, *grpc.ClientConn) error) (rows []row) {
	const gone = "spiffe://tulle.local/ns/default/sa/gone"
	thief := ca.sign(t, func(c *x509.Certificate) { c.URIs = uris(gone) })
	if _, err := m.cli("cert", "revoke", gone); err != nil {
		t.Fatal(err)
	}
	add := func(name string, cert *tls.Certificate, f func(ctx context.Context, c *grpc.ClientConn) error) {
		rows = append(rows, row{name: "revoked or stolen: " + name, want: no, hidden: true, try: func(m *mesh) string { return call(m, cert, f) }})
	}
	key, err := svid.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	attest := func(token, account string) func(ctx context.Context, c *grpc.ClientConn) error {
		csr, err := svid.Request(key, spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: account})
		if err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := attestpb.NewIdentityClient(c).Attest(ctx, &attestpb.AttestRequest{Namespace: "default", ServiceAccount: account, Token: token, Csr: csr})
			return err
		}
	}
	token := func(account string) string {
		out, err := m.cli("token", "--service", account)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	add("joins", thief, join(&tullepb.Hello{Workload: "gone-1", Namespace: "default", Service: "gone", ServiceAccount: "gone", Address: "127.0.0.1:1"}))
	add("renews", thief, func(ctx context.Context, c *grpc.ClientConn) error {
		csr, err := svid.Request(key, spiffe.ID{TrustDomain: "tulle.local", Namespace: "default", ServiceAccount: "gone"})
		if err == nil {
			_, err = attestpb.NewIdentityClient(c).Renew(ctx, &attestpb.RenewRequest{Csr: csr})
		}
		return err
	})
	add("a good token of a revoked identity", nil, attest(token("gone"), "gone"))
	add("a good token of another service", nil, attest(token("visitor"), m.service))
	once := token("visitor")
	if got := call(m, nil, attest(once, "visitor")); got != codes.OK.String() {
		t.Fatalf("a good token: %s", got)
	}
	add("a token that was used", nil, attest(once, "visitor"))
	add("half of a token", nil, attest(once[:len(once)/2], "visitor"))
	return rows
}

func numbered(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint("s", i, ".default"))
	}
	return out
}

// api is the port of administrators, for who is none.
func api(m *mesh) (rows []row) {
	add := func(name, method, path string, fields map[string]string, body io.Reader) {
		rows = append(rows, row{name: "API: " + name, want: []string{"400", "401", "403", "404", "405", "413"}, hidden: true, try: func(m *mesh) string {
			r, err := http.NewRequest(method, "http://"+m.http+path, body)
			if err != nil {
				return err.Error()
			}
			for k, v := range fields {
				r.Header.Set(k, v)
			}
			res, err := m.client.Do(r)
			if err != nil {
				return err.Error()
			}
			res.Body.Close()
			return fmt.Sprint(res.StatusCode)
		}})
	}
	add("no token", "GET", "/v1/status", nil, nil)
	for i, v := range []string{"Bearer x", "Bearer ", "Basic YWRtaW46YWRtaW4=", "bearer", "Bearer " + strings.Repeat("x", 8000), "Bearer \x80"} {
		add(fmt.Sprintf("token %d", i), "GET", "/v1/status", map[string]string{"Authorization": v}, nil)
	}
	add("token in the query", "GET", "/v1/status?token=x&access_token=x", nil, nil)
	add("says it is local", "GET", "/v1/status", map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "X-Forwarded-Client-Cert": "URI=spiffe://tulle.local/ns/tulle-system/sa/control"}, nil)
	add("writes", "POST", "/v1/objects", nil, strings.NewReader("{}"))
	add("makes a join token", "POST", "/v1/tokens", nil, strings.NewReader("{}"))
	add("climbs", "GET", "/v1/../../etc/passwd", nil, nil)
	add("body of 8 MB", "POST", "/v1/apply", nil, io.LimitReader(rand.Reader, 8<<20))
	return rows
}
