package httpapi_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/control/store/mem"
	"github.com/tulle-mesh/tulle/control/token"
	"github.com/tulle-mesh/tulle/telemetry"
)

// TestPanic: what makes the control plane panic is answered and said in its log, and the next request is served.
func TestPanic(t *testing.T) {
	s := mem.New(0)
	t.Cleanup(func() { s.Close() })
	var said bytes.Buffer
	a := httpapi.New(httpapi.Config{Store: s, Registry: view{}, Tokens: token.New(s, func() []byte { return nil }), Admin: admin, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(&said, nil)), Edges: func(context.Context, time.Duration) ([]telemetry.Edge, error) { panic("no edge") }})
	h := a.RemoteServer().Handler
	for path, want := range map[string]int{"/v1/stat": http.StatusInternalServerError, "/v1/objects/Service": http.StatusOK} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Authorization", "Bearer "+admin)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want || want != http.StatusOK && !strings.Contains(w.Body.String(), "its log says where") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if !strings.Contains(said.String(), "no edge") || !strings.Contains(said.String(), "panic_test.go") {
		t.Error(said.String())
	}
}
