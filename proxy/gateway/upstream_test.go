package gateway_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// secureOrigin is a server over TLS that wants a client's certificate and answers who it is.
func secureOrigin(t *testing.T, ca *authority) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Proto, r.TLS.ServerName, r.TLS.PeerCertificates[0].URIs[0], body)
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.pair(ca.leaf("", "server.test"))}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}
	s.StartTLS()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

const clientID = "spiffe://tulle.local/ns/default/sa/edge"

func (a *authority) client(sni string) *model.ClientTLS {
	return &model.ClientTLS{SNI: sni, Certificates: []model.SecretRef{{Inline: a.leaf(clientID)}},
		Validation: &model.Validation{Roots: a.roots(), SANs: []model.SANMatch{{Kind: model.SANDNS, Match: model.StringMatch{Value: "server.test"}}}}}
}

// TestUpstreamTLS: mTLS to the servers, in either version of HTTP and for TCP.
func TestUpstreamTLS(t *testing.T) {
	ca := newAuthority(t)
	at := secureOrigin(t, ca)
	b := &model.Bootstrap{}
	static(b, "h1", at).TLS = ca.client("server.test")
	h2 := static(b, "h2", at)
	h2.TLS, h2.Upstream.Version = ca.client("server.test"), model.UpstreamHTTP2
	stranger := static(b, "stranger", at)
	stranger.TLS = newAuthority(t).client("server.test")
	b.Listeners = []model.Listener{listener("h1", httpChain("h1")), listener("h2", httpChain("h2")), listener("tcp", tcpChain("h1")),
		listener("stranger", httpChain("stranger"))}
	g := start(t, b)
	for _, c := range []struct{ listener, version, want string }{
		{"h1", "1", "HTTP/1.1 server.test " + clientID + " body"}, {"h1", "h2c", "HTTP/1.1 server.test " + clientID + " body"},
		{"h2", "1", "HTTP/2.0 server.test " + clientID + " body"}, {"h2", "h2c", "HTTP/2.0 server.test " + clientID + " body"},
		{"tcp", "1", "HTTP/1.1 server.test " + clientID + " body"},
	} {
		r, err := client(t, g.Listening(c.listener)[0], nil, c.version).Post("http://a.test/", "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Errorf("%s, client %s: %v", c.listener, c.version, err)
			continue
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != 200 || string(body) != c.want {
			t.Errorf("%s, client %s: %s %q %v", c.listener, c.version, r.Status, body, err)
		}
	}
	r, err := client(t, g.Listening("stranger")[0], nil, "1").Get("http://a.test/")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode < 500 {
		t.Errorf("a server that nobody vouches for: %s", r.Status)
	}
}

// TestNames: endpoints come from host names, and a listener waits for them; what is not resolved is no endpoint.
func TestNames(t *testing.T) {
	at := origin(t, "one")
	b := &model.Bootstrap{}
	for _, c := range []struct {
		name, host string
		d          model.Discovery
	}{{"strict", "localhost", model.DiscoveryStrictDNS}, {"logical", "localhost", model.DiscoveryLogicalDNS}, {"none", "nobody.invalid", model.DiscoveryStrictDNS}} {
		b.Clusters = append(b.Clusters, model.Cluster{Name: model.Free(c.name), ConnectTimeout: time.Second, Discovery: c.d,
			Hosts: []model.Host{{Name: c.host, Port: at.Port(), Weight: 1}}, DNS: model.DNSOptions{Family: model.DNSV4Only, Refresh: time.Minute}})
		b.Listeners = append(b.Listeners, listener(c.name, httpChain(c.name)))
	}
	g := start(t, b)
	waitFor(t, g.Ready)
	for _, l := range []string{"strict", "logical"} {
		if got := get(t, client(t, g.Listening(l)[0], nil, "1"), "http://a.test/"); !strings.HasPrefix(got, "one ") {
			t.Errorf("%s: %q", l, got)
		}
	}
	r, err := client(t, g.Listening("none")[0], nil, "1").Get("http://a.test/")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 503 {
		t.Errorf("a name that does not exist: %s", r.Status)
	}
}
