package federate_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/tulle-mesh/tulle/api/v1alpha1"
	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/federate"
	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/model"
)

// patience bounds what ought to take a second or two.
const patience = 30 * time.Second

// other is another mesh: its authority, and its bundle endpoint.
type other struct {
	t      *testing.T
	ca     *ca.CA
	server *http.Server
	url    string
	asked  atomic.Int32
	down   atomic.Bool // it answers 500
	wrong  atomic.Pointer[string]
}

var server = spiffe.ID{TrustDomain: "other.example", Namespace: "tulle-system", ServiceAccount: "control"}

func newOther(t *testing.T) *other {
	t.Helper()
	o := &other{t: t}
	var err error
	if o.ca, err = ca.Open(ca.Config{Dir: filepath.Join(t.TempDir(), "ca"), TrustDomain: "other.example"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	own := func() *model.Trust {
		return &model.Trust{Stage: uint64(o.asked.Load()), Bundles: []model.TrustBundle{{TrustDomain: "other.example", Roots: o.ca.RootsDER()}}}
	}
	o.server = federate.Endpoint(own, fixed{o.identity()}, time.Second)
	inner := o.server.Handler
	o.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.asked.Add(1)
		switch text := o.wrong.Load(); {
		case o.down.Load():
			http.Error(w, "down", http.StatusInternalServerError)
		case text != nil:
			fmt.Fprint(w, *text)
		default:
			inner.ServeHTTP(w, r)
		}
	})
	o.server.ErrorLog = log.New(io.Discard, "", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go o.server.ServeTLS(l, "", "") // ends with Close
	t.Cleanup(func() { o.server.Close() })
	o.url = "https://" + l.Addr().String() + "/bundle"
	return o
}

type fixed struct{ s *svid.SVID }

func (f fixed) Current() *svid.SVID { return f.s }

// identity is what its control plane proves itself with.
func (o *other) identity() *svid.SVID {
	o.t.Helper()
	key, err := svid.NewKey()
	if err != nil {
		o.t.Fatal(err)
	}
	csr, err := svid.Request(key, server)
	if err != nil {
		o.t.Fatal(err)
	}
	issued, err := o.ca.Sign(csr, server, 0, time.Now())
	if err != nil {
		o.t.Fatal(err)
	}
	s, err := svid.New(key, issued.Chain, o.ca.RootsDER())
	if err != nil {
		o.t.Fatal(err)
	}
	return s
}

// bundle is its first one, as somebody hands it over.
func (o *other) bundle() string {
	o.t.Helper()
	text, err := federate.Marshal("other.example", o.ca.RootsDER(), 1, 0)
	if err != nil {
		o.t.Fatal(err)
	}
	return string(text)
}

func (o *other) spiffe() v1alpha1.Federation {
	return v1alpha1.Federation{TrustDomain: "other.example", Bundle: o.bundle(), Endpoint: &v1alpha1.BundleEndpoint{URL: o.url, Profile: v1alpha1.ProfileSPIFFE, SpiffeID: server.String()}}
}

func keeper(t *testing.T, s store.Store) *federate.Keeper {
	t.Helper()
	k := federate.New(federate.Config{Store: s})
	t.Cleanup(k.Close)
	return k
}

func memory(t *testing.T) store.Store {
	s := mem.New(100)
	t.Cleanup(func() { s.Close() })
	return s
}

func config(list ...v1alpha1.Federation) *v1alpha1.MeshConfigSpec {
	return &v1alpha1.MeshConfigSpec{TrustDomain: "tulle.local", Federation: list}
}

func only(t *testing.T, k *federate.Keeper) federate.Bundle {
	t.Helper()
	list := k.Bundles()
	if len(list) != 1 {
		t.Fatalf("%d trust domains", len(list))
	}
	return list[0]
}

// await waits until is answers true of the only bundle.
func await(t *testing.T, k *federate.Keeper, what string, is func(federate.Bundle) bool) federate.Bundle {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // poll
		if b := only(t, k); is(b) {
			return b
		} else if time.Now().After(end) {
			t.Fatalf("not within %s: %s: %d roots from %s, failing: %q", patience, what, len(b.Roots), b.From, b.Failing)
		}
	}
}

// TestEndpoint: a bundle is fetched from an endpoint that proves itself by it, again as often as it says; what it says meanwhile is
// taken, what cannot be fetched or read leaves the last one in force, and a restart begins with that.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	o, s := newOther(t), memory(t)
	k := keeper(t, s)
	var changes atomic.Int32
	k.Changed(func() { changes.Add(1) })
	k.Configure(config(o.spiffe()))
	if b := only(t, k); len(b.Roots) != 1 || b.From != "MeshConfig" {
		t.Errorf("what is written is not known at once: %+v", b)
	}
	fetched := await(t, k, "fetched", func(b federate.Bundle) bool { return b.From == o.url })
	if fetched.Hint != 1 || !bytes.Equal(fetched.Roots[0], o.ca.RootsDER()[0]) {
		t.Errorf("%+v", fetched)
	}
	n := changes.Load()
	if err := o.ca.RotateRoot(time.Now()); err != nil {
		t.Fatal(err)
	}
	await(t, k, "two roots", func(b federate.Bundle) bool { return len(b.Roots) == 2 })
	if changes.Load() == n {
		t.Error("nobody was told")
	}
	o.down.Store(true)
	if b := await(t, k, "it fails", func(b federate.Bundle) bool { return b.Failing != "" }); len(b.Roots) != 2 || b.Since.IsZero() || !strings.Contains(b.Failing, "500") {
		t.Errorf("down: %+v", b)
	}
	o.down.Store(false)
	await(t, k, "it does not fail any more", func(b federate.Bundle) bool { return b.Failing == "" })
	for _, text := range []string{"", "{}", "{", `{"keys":[]}`, strings.Repeat("x", v1alpha1.MaxBundle+1), `{"keys":[{"use":"x509-svid","kty":"EC","crv":"P-256","x":"AA","y":"AA","x5c":["AA=="]}]}`} {
		o.wrong.Store(&text)
		if b := await(t, k, "what is no bundle fails", func(b federate.Bundle) bool { return b.Failing != "" }); len(b.Roots) != 2 {
			t.Errorf("%.40q took the roots away", text)
		}
		o.wrong.Store(nil)
		await(t, k, "it is well again", func(b federate.Bundle) bool { return b.Failing == "" })
	}
	o.down.Store(true)
	k.Close()
	again := keeper(t, s)
	again.Configure(config(o.spiffe()))
	if b := only(t, again); len(b.Roots) != 2 || b.Fetched.IsZero() || b.From != o.url {
		t.Errorf("after a restart: %+v", b)
	}
	again.Configure(config())
	if list := again.Bundles(); len(list) != 0 {
		t.Errorf("taken out, and still believed: %+v", list)
	}
}

// TestWhoIsAsked: an endpoint that proves to be somebody else is not believed, whatever it says, by either profile.
func TestWhoIsAsked(t *testing.T) {
	t.Parallel()
	o := newOther(t)
	stranger := newOther(t) // of the same name, with an authority of its own
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, o.bundle()) }))
	t.Cleanup(web.Close)
	hop := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, web.URL, http.StatusFound) }))
	t.Cleanup(hop.Close)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	by := func(e v1alpha1.BundleEndpoint) v1alpha1.Federation {
		f := v1alpha1.Federation{TrustDomain: "other.example", Endpoint: &e}
		if e.Profile == v1alpha1.ProfileSPIFFE {
			f.Bundle = o.bundle()
		}
		return f
	}
	for name, c := range map[string]struct {
		f    v1alpha1.Federation
		good bool
	}{
		"https_spiffe":                    {by(v1alpha1.BundleEndpoint{URL: o.url, Profile: v1alpha1.ProfileSPIFFE, SpiffeID: server.String()}), true},
		"https_spiffe, another authority": {by(v1alpha1.BundleEndpoint{URL: stranger.url, Profile: v1alpha1.ProfileSPIFFE, SpiffeID: server.String()}), false},
		"https_spiffe, another identity":  {by(v1alpha1.BundleEndpoint{URL: o.url, Profile: v1alpha1.ProfileSPIFFE, SpiffeID: "spiffe://other.example/spire/server"}), false},
		"https_spiffe, of a web server":   {by(v1alpha1.BundleEndpoint{URL: web.URL, Profile: v1alpha1.ProfileSPIFFE, SpiffeID: server.String()}), false},
		"https_web":                       {by(v1alpha1.BundleEndpoint{URL: web.URL, Profile: v1alpha1.ProfileWeb, CAFile: caFile}), true},
		"https_web, unknown authority":    {by(v1alpha1.BundleEndpoint{URL: web.URL, Profile: v1alpha1.ProfileWeb}), false},
		"https_web, redirected":           {by(v1alpha1.BundleEndpoint{URL: hop.URL, Profile: v1alpha1.ProfileWeb, CAFile: caFile}), false},
		"https_web, of a SPIFFE server":   {by(v1alpha1.BundleEndpoint{URL: o.url, Profile: v1alpha1.ProfileWeb, CAFile: caFile}), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := keeper(t, memory(t))
			k.Configure(config(c.f))
			if c.good {
				await(t, k, "fetched", func(b federate.Bundle) bool {
					return b.From == c.f.Endpoint.URL && len(b.Roots) == 1 && b.Failing == ""
				})
			} else if b := await(t, k, "refused", func(b federate.Bundle) bool { return b.Failing != "" }); b.From == c.f.Endpoint.URL && len(b.Roots) > 0 {
				t.Errorf("taken: %+v", b)
			}
		})
	}
}

// TestFile: a file is read again when it changes; one that is broken leaves what it said before.
func TestFile(t *testing.T) {
	t.Parallel()
	o := newOther(t)
	path := filepath.Join(t.TempDir(), "bundle")
	write := func(text string) {
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(string(o.ca.RootsPEM()))
	k := keeper(t, memory(t))
	k.Configure(config(v1alpha1.Federation{TrustDomain: "other.example", BundleFile: path}))
	await(t, k, "read", func(b federate.Bundle) bool { return len(b.Roots) == 1 && b.From == path })
	write("-----BEGIN CERTIFICATE-----\nbroken")
	if b := await(t, k, "broken", func(b federate.Bundle) bool { return b.Failing != "" }); len(b.Roots) != 1 {
		t.Errorf("%+v", b)
	}
	if err := o.ca.RotateRoot(time.Now()); err != nil {
		t.Fatal(err)
	}
	write(o.bundle())
	await(t, k, "two roots, in the other form", func(b federate.Bundle) bool { return len(b.Roots) == 2 && b.Failing == "" })
}

// TestGoSpiffeFetches: the endpoint is one that go-spiffe reads, by https_spiffe.
func TestGoSpiffeFetches(t *testing.T) {
	t.Parallel()
	o := newOther(t)
	td := spiffeid.RequireTrustDomainFromString("other.example")
	k := keeper(t, memory(t))
	k.Configure(config(v1alpha1.Federation{TrustDomain: "other.example", Bundle: string(o.ca.RootsPEM())}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b, err := federation.FetchBundle(ctx, td, o.url, federation.WithSPIFFEAuth(k, spiffeid.RequireFromString(server.String())))
	if err != nil {
		t.Fatal(err)
	}
	if hint, ok := b.RefreshHint(); len(b.X509Authorities()) != 1 || !ok || hint != time.Second {
		t.Errorf("%v, hint %s", b.X509Authorities(), hint)
	}
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	res, err := c.Post(o.url, "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", res.Status)
	}
}

// TestAliases: what counts as the mesh's own, before and after its trust domain has changed.
func TestAliases(t *testing.T) {
	t.Parallel()
	k := keeper(t, memory(t))
	k.Configure(&v1alpha1.MeshConfigSpec{TrustDomain: "new.example", TrustDomainAliases: []string{"tulle.local", "older.local"}})
	for own, want := range map[string]string{"tulle.local": "[new.example older.local]", "new.example": "[tulle.local older.local]", "third.example": "[]"} {
		if got := fmt.Sprint(k.Aliases(own)); got != want {
			t.Errorf("%s: %s, want %s", own, got, want)
		}
	}
}

// FuzzParse: whatever is taken for a bundle has roots, and reads the same again when it is written.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"keys":[{"use":"x509-svid","kty":"EC","crv":"P-256","x":"AA","y":"AA","x5c":["AA=="]}],"spiffe_refresh_hint":1}`))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := mem.New(1)
		defer s.Close()
		k := federate.New(federate.Config{Store: s})
		defer k.Close()
		k.Configure(config(v1alpha1.Federation{TrustDomain: "other.example", Bundle: string(text)}))
		b := k.Bundles()[0]
		_, err := federate.Check([]v1alpha1.Federation{{TrustDomain: "other.example", Bundle: string(text)}})
		if known := len(b.Roots) > 0; known != (err == nil && len(text) > 0) {
			t.Fatalf("%d roots, %v", len(b.Roots), err)
		}
		if len(b.Roots) == 0 {
			return
		}
		again, err := federate.Marshal("other.example", b.Roots, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := federate.Check([]v1alpha1.Federation{{TrustDomain: "other.example", Bundle: string(again)}}); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}
