package listener_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/proxy/listener"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/mtls"
	"github.com/tulle-mesh/tulle/proxy/pool"
)

type source struct{ id *mtls.Identity }

func (s source) Identity() *mtls.Identity { return s.id }

// identities answers sources for two SPIFFE IDs below one root.
func identities(t *testing.T, ids ...string) (s []source) {
	t.Helper()
	roots := x509.NewCertPool()
	sign := func(tmpl, parent *x509.Certificate, key *ecdsa.PrivateKey, pub any) []byte {
		tmpl.NotBefore, tmpl.NotAfter, tmpl.BasicConstraintsValid = time.Now().Add(-time.Hour), time.Now().Add(time.Hour), true
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	rootKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	rootCert, err := x509.ParseCertificate(sign(root, root, rootKey, rootKey.Public()))
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(rootCert)
	for i, id := range ids {
		uri, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(i) + 2), KeyUsage: x509.KeyUsageDigitalSignature, URIs: []*url.URL{uri},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		der := sign(leaf, rootCert, rootKey, key.Public())
		s = append(s, source{&mtls.Identity{Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, Roots: roots}})
	}
	return s
}

// secureWorld has TLS between the two proxies, from a real pool.
func secureWorld(t *testing.T) *world {
	const db = "spiffe://tulle.local/ns/default/sa/db"
	who := identities(t, peer.String(), db)
	return buildWorld(t, func(w *world, cfg *listener.Config) {
		cfg.Blanks = pool.New(pool.Config{Loop: w.loop, Mesh: func(to *pool.Target, timeout time.Duration, h loop.Handler) loop.Conn {
			id, err := spiffe.ParseID(to.Identity)
			if err != nil {
				panic(err)
			}
			// All endpoints of these tests are one workload.
			return mtls.Dial(w.loop, loop.Dial{Address: to.Address, Timeout: timeout}, mtls.ClientConfig(who[0], listener.ServerName(to.Port, "db-1", to.Namespace), id), h)
		}})
		srv := mtls.ServerConfig(who[1], mtls.ServerOptions{Known: w.mesh.Known})
		w.mesh.Handshake = func(raw loop.Conn, h loop.Handler) listener.Secure { return mtls.Server(raw, srv, h) }
	})
}
