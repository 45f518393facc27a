package gateway_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
)

// TestOwnCertificate: servers and access logs are told which certificate of ours a client has seen, also when it has
// resumed a session and so seen none.
func TestOwnCertificate(t *testing.T) {
	ca := newAuthority(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-Client-Cert"))
	}))
	t.Cleanup(server.Close)
	b := &model.Bootstrap{}
	static(b, "one", netip.MustParseAddrPort(server.Listener.Addr().String()))
	id := func(name string) string { return "spiffe://tulle.local/edge/" + name }
	path := filepath.Join(t.TempDir(), "log")
	c := httpChain("one")
	c.TLS = &model.ServerTLS{RequireClient: true, Validation: &model.Validation{Roots: ca.roots()}}
	for _, name := range []string{"a.test", "b.test"} {
		c.TLS.Certificates = append(c.TLS.Certificates, model.SecretRef{Inline: ca.leaf(id(name), name)})
	}
	c.HTTP.XFCC = model.XFCCSanitizeSet
	c.HTTP.AccessLogs = []model.AccessLog{{Path: path, Format: "%REQUESTED_SERVER_NAME% %DOWNSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_LOCAL_SUBJECT%\n"}}
	plain := httpChain("one")
	plain.HTTP.XFCC, plain.HTTP.AccessLogs = c.HTTP.XFCC, c.HTTP.AccessLogs
	b.Listeners = []model.Listener{listener("tls", c), listener("plain", plain)}
	g := start(t, b)
	want := ""
	for _, name := range []string{"a.test", "b.test"} {
		cfg := &tls.Config{RootCAs: ca.pool(), ServerName: name, ClientSessionCache: tls.NewLRUClientSessionCache(1),
			Certificates: []tls.Certificate{ca.pair(ca.leaf(clientID))}}
		for _, resumed := range []bool{false, true} {
			h := client(t, g.Listening("tls")[0], cfg, "1")
			r, err := h.Get("https://" + name + "/")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			r.Body.Close()
			h.CloseIdleConnections()
			if err != nil || r.TLS.DidResume != resumed || !strings.HasPrefix(string(body), "By="+id(name)+";Hash=") {
				t.Errorf("%s, resumed %v: %q %v", name, r.TLS.DidResume, body, err)
			}
			want += fmt.Sprintf("%s %s CN=leaf\n", name, id(name))
		}
	}
	if got := get(t, client(t, g.Listening("plain")[0], nil, "1"), "http://a.test/"); got != "" {
		t.Errorf("without TLS: %q", got)
	}
	want += "- - -\n"
	waitFor(t, func() error {
		got, err := os.ReadFile(path)
		if err == nil && string(got) != want {
			err = fmt.Errorf("%q, want %q", got, want)
		}
		return err
	})
}
