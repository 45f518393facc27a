package web_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/control/ca/issuer/web"
)

// TestAnswers: no redirect is followed, since a secret would go along; what is too long, or breaks off, is refused in one line.
func TestAnswers(t *testing.T) {
	stolen := false
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen = true }))
	defer thief.Close()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
		case "/long":
			_, _ = w.Write(make([]byte, 300<<10))
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
		case "/lines":
			http.Error(w, "first\nsecond\r\n\x1b[31mthird "+strings.Repeat("x", 1000), http.StatusTeapot)
		}
	}))
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, issuertest.PEM(s.Certificate()), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := web.New(s.URL, ca)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for path, want := range map[string]string{"/away": "redirects", "/long": "more than", "/cut": "breaks off", "/lines": "418 I'm a teapot"} {
		say := func(int, []byte) (string, string) { return "", "" }
		if path == "/lines" {
			say, want = func(_ int, body []byte) (string, string) { return string(body), "next" }, "418 first second [31mthird"
		}
		_, err := c.Do(t.Context(), web.Question{Issuer: "it", What: "ask", Method: "POST", Path: path, Header: http.Header{"X-Secret": {"hush"}}, Body: []byte("{}"), Say: say})
		if err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\r\x1b") || len(err.Error()) > 500 || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", path, err)
		}
		if issuer.Again(err) != (path == "/cut") {
			t.Errorf("%s: again %v", path, issuer.Again(err))
		}
	}
	if stolen {
		t.Error("a redirect was followed")
	}
}
