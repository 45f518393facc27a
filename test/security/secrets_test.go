//go:build e2e

package security

import (
	"context"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secrets holds that nothing that only its owner may know is in what anybody is shown: logs, objects, status, metrics, what the
// proxy's admin says of itself.
func secrets(t *testing.T, m *mesh) {
	hidden := map[string]string{}
	token, err := os.ReadFile(filepath.Join(m.data, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	hidden["the administrator's token"] = strings.TrimSpace(string(token))
	join, err := m.cli("token", "--service", "later")
	if err != nil {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(join)) {
		if len(word) > 40 {
			hidden["a join token"] = word
		}
	}
	keys, _ := filepath.Glob(filepath.Join(m.data, "ca", "*.pem"))
	for _, path := range keys {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
			if !strings.Contains(b.Type, "PRIVATE KEY") {
				continue
			}
			body := strings.Split(string(pem.EncodeToMemory(b)), "\n")
			hidden["the key in "+filepath.Base(path)] = body[1]
		}
	}
	hidden["a token in a query"] = "c2lnbmF0dXJlLW9mLWEtdG9rZW4"
	if res, err := m.client.Get("http://" + m.published + "/planted?access_token=eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0." + hidden["a token in a query"]); err != nil {
		t.Error(err)
	} else {
		res.Body.Close()
	}
	if len(hidden) < 5 {
		t.Fatalf("only %d secrets are known: %d keys", len(hidden), len(keys))
	}
	shown := map[string]string{}
	for _, args := range [][]string{{"status", "-o", "json"}, {"status"}, {"cert"}, {"cert", "-o", "json"}, {"endpoints", "-o", "yaml"}, {"routes", "-o", "yaml"}, {"get", "services", "-o", "yaml"}, {"get", "authorizationpolicies", "-o", "yaml"}, {"token", "list"}, {"token", "list", "-o", "json"}, {"check"},
		{"explain", "--service", m.service, "--last", "50"}, {"explain", "--service", m.service, "--last", "50", "-o", "json"}, {"authz", "suggest", "--service", m.service}} {
		out, err := m.cli(args...)
		text := string(out)
		if err != nil {
			text += err.Error()
		}
		shown["tulle "+strings.Join(args, " ")] = text
	}
	if text := shown["tulle explain --service "+m.service+" --last 50"]; !strings.Contains(text, "GET /planted of") {
		t.Errorf("the request with a token is not recorded: %s", text)
	}
	logged := false
	files, _ := filepath.Glob(filepath.Join(m.dir, "*.*"))
	for _, path := range files {
		text, _ := os.ReadFile(path)
		shown["the log "+filepath.Base(path)] = string(text)
		logged = logged || strings.Contains(string(text), "/planted?access_token=redacted")
	}
	if !logged {
		t.Error("the request with a token is not in the access log")
	}
	shown["/metrics"] = body(t, m.client, "http://"+m.metrics+"/metrics")
	admin := 0
	_ = filepath.WalkDir(m.data, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSocket == 0 {
			return nil
		}
		c := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
		if res, err := c.Get("http://x/stats"); err != nil {
			return nil
		} else if res.Body.Close(); res.StatusCode != http.StatusOK {
			return nil
		}
		admin++
		for _, page := range []string{"stats", "config", "routes", "endpoints", "accesslog", "metrics"} {
			shown[path+" /"+page] = body(t, c, "http://x/"+page)
		}
		return nil
	})
	if admin == 0 {
		t.Error("no proxy's admin was found")
	}
	for where, text := range shown {
		if len(text) == 0 {
			continue
		}
		for what, secret := range hidden {
			if strings.Contains(text, secret) {
				t.Errorf("%s says %s", where, what)
			}
		}
		if strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("%s shows a private key", where)
		}
	}
	t.Logf("%d secrets looked for in %d places, %d proxies", len(hidden), len(shown), admin)
}

func body(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}
