package downstream_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/proxy/exchange"
)

// identityFields are what a request from outside must not bring to a program, in the spellings that programs may read alike.
var identityFields = []string{
	"X-Forwarded-Client-Cert: By=spiffe://tulle.local/ns/default/sa/cart;URI=spiffe://tulle.local/ns/default/sa/admin",
	"x_forwarded_client_cert: URI=spiffe://x", "X.Forwarded.Client.Cert: URI=spiffe://x", "x-forwarded_client.CERT: URI=spiffe://x",
	"tulle-class: critical", "Tulle-Reason: none", "tulle_class: critical", "TULLE.HTTP: 2", "tulle-anything: 1",
	"x-envoy-internal: true", "x_envoy_internal: true", "X-Envoy-External-Address: 10.0.0.1", "x-envoy-peer-metadata: AAAA",
	"x-envoy-peer-metadata-id: sidecar~10.0.0.1~a.b~b.svc", "x-envoy-downstream-service-cluster: admin", "x-envoy-downstream-service-node: admin",
	"x-envoy-original-dst-host: 127.0.0.1:1", "x-envoy-decorator-operation: x", "X-ENVOY_force.trace: 1",
}

// told starts a program that says which fields it got, and answers what asks it: raw bytes to one of the proxies.
func told(t *testing.T, edit func(o *exchange.Origin)) (ask func(head string) string) {
	t.Helper()
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			for _, v := range values {
				fmt.Fprintf(w, "%s: %s\n", strings.ToLower(name), v)
			}
		}
		for name, values := range r.Trailer {
			fmt.Fprintf(w, "trailer %s: %s\n", strings.ToLower(name), values)
		}
	})
	o := inbound(addrOf(t, srv))
	edit(&o)
	in := newHop(t, setup{origin: o})
	return func(head string) string { return exchangeRaw(t, in.addr, head) }
}

func exchangeRaw(t *testing.T, addr, head string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte(head)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	if _, err := bufio.NewReader(res.Body).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestIdentityFields: through a published port, from a program, and from a peer of the mesh, nobody says who he is by a field.
func TestIdentityFields(t *testing.T) {
	for name, edit := range map[string]func(o *exchange.Origin){
		"published": func(o *exchange.Origin) { o.Publish = true },
		"program":   func(*exchange.Origin) {},
		"peer":      func(o *exchange.Origin) { o.Mesh = true },
	} {
		t.Run(name, func(t *testing.T) {
			ask := told(t, edit)
			for _, f := range identityFields {
				field, _, _ := strings.Cut(strings.ToLower(f), ":")
				got := ask("GET / HTTP/1.1\r\nHost: a\r\n" + f + "\r\nX-Mine: kept\r\nConnection: close\r\n\r\n")
				if strings.Contains(got, field+":") || !strings.Contains(got, "x-mine: kept") {
					t.Errorf("%s: the program got\n%s", f, got)
				}
			}
			got := ask("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\nx-forwarded-client-cert: URI=spiffe://x\r\nTulle_Class: critical\r\n\r\n")
			if strings.Contains(got, "client-cert") || strings.Contains(got, "tulle") {
				t.Errorf("in trailers: the program got\n%s", got)
			}
		})
	}
}

// TestForwardedSpellings: the program learns the address of who called a published port, whatever he says about it.
func TestForwardedSpellings(t *testing.T) {
	ask := told(t, func(o *exchange.Origin) { o.Publish = true })
	for _, f := range []string{"x_forwarded_for: 10.9.9.9", "X.Forwarded.For: 10.9.9.9", "x-forwarded_proto: https", "X_Forwarded_Host: admin"} {
		if got := ask("GET / HTTP/1.1\r\nHost: a\r\n" + f + "\r\nConnection: close\r\n\r\n"); strings.Contains(got, "10.9.9.9") || strings.Contains(got, "https") || strings.Contains(got, "admin") {
			t.Errorf("%s: the program got\n%s", f, got)
		}
	}
	// What Connection names is gone before ours is written, and takes nothing of ours with it.
	for _, named := range []string{"x-forwarded-for", "x-request-id", "X-Forwarded-For, X-Request-Id, host, content-length"} {
		got := ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.9.9.9\r\nConnection: close, " + named + "\r\n\r\n")
		if !strings.Contains(got, "x-forwarded-for: ") || !strings.Contains(got, "127.0.0.1") || !strings.Contains(got, "x-request-id: ") {
			t.Errorf("Connection: %s: the program got\n%s", named, got)
		}
	}
}
