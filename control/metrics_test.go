package control_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/control"
	"github.com/tulle-mesh/tulle/telemetry"
)

// TestMetrics: every metric of the table is there for the user and for who scrapes with the token for that, which opens nothing else.
func TestMetrics(t *testing.T) {
	dir := t.TempDir()
	p := start(t, config(dir))
	get := func(c *http.Client, url, token string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	admin, scrape := read(control.AdminTokenFile(dir)), read(control.MetricsTokenFile(dir))
	if st, err := os.Stat(control.MetricsTokenFile(dir)); err != nil || st.Mode().Perm() != 0o600 || admin == scrape {
		t.Errorf("%v, %v", st, err)
	}
	tcp := "http://" + p.HTTPAddress()
	for _, one := range []struct {
		path, token string
		want        int
	}{{"/metrics", "", 401}, {"/metrics", "x", 401}, {"/metrics", admin, 200}, {"/v1/status", scrape, 401}, {"/v1/objects/Service", scrape, 401}, {"/metrics/", scrape, 401}, {"/v1/status", admin, 200}} {
		if code, text := get(http.DefaultClient, tcp+one.path, one.token); code != one.want {
			t.Errorf("%s with %.4q: %d %s", one.path, one.token, code, text)
		}
	}
	local := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", control.APISocket(dir))
	}}}
	if code, _ := get(local, "http://tulle/metrics", ""); code != 200 {
		t.Errorf("%d for the user", code)
	}
	_, text := get(http.DefaultClient, tcp+"/metrics", scrape)
	for _, m := range telemetry.ControlMetrics() {
		if !strings.Contains(text, "# TYPE "+m.Name+" "+m.Type+"\n") {
			t.Errorf("there is no %s", m.Name)
		}
	}
	for line, least := range map[string]float64{
		`tulle_control_certificate_left_seconds{certificate="root"}`: 3600, `tulle_control_certificate_left_seconds{certificate="intermediate"}`: 3600,
		`tulle_control_certificate_left_seconds{certificate="control"}`: 60, `tulle_control_certificate_left_seconds{certificate="first"}`: 60,
		`tulle_control_proxies_connected`: 0, `tulle_control_pushes_total{type="Trust"}`: 0, `tulle_control_certificates_issued_total`: 1, `go_goroutines`: 1,
	} {
		found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(line) + ` (\S+)$`).FindStringSubmatch(text)
		if found == nil {
			t.Errorf("there is no %s:\n%s", line, text)
			continue
		}
		if v, err := strconv.ParseFloat(found[1], 64); err != nil || v < least {
			t.Errorf("%s: %v, at least %v is expected", found[0], err, least)
		}
	}
}
