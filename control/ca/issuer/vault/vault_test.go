package vault_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	"github.com/tulle-mesh/tulle/control/ca/issuer/vault"
	"github.com/tulle-mesh/tulle/control/ca/issuer/vault/vaulttest"
)

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// config answers one for a server, with its token.
func config(t *testing.T, v *vaulttest.Vault) vault.Config {
	return vault.Config{Address: v.URL, CAFile: file(t, "ca.pem", string(v.ServerCA())), Role: "mesh", TokenFile: file(t, "token", v.Token)}
}

func approle(t *testing.T, v *vaulttest.Vault) vault.Config {
	cfg := config(t, v)
	cfg.TokenFile, cfg.RoleIDFile, cfg.SecretIDFile = "", file(t, "role", v.RoleID), file(t, "secret", v.SecretID)
	return cfg
}

func open(t *testing.T, cfg vault.Config) *vault.Issuer {
	t.Helper()
	i, err := vault.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

func TestContract(t *testing.T) {
	for name, config := range map[string]func(*testing.T, *vaulttest.Vault) vault.Config{
		"token": config, "approle": approle,
		"verbatim": func(t *testing.T, v *vaulttest.Vault) vault.Config {
			cfg := config(t, v)
			cfg.Verbatim = true
			return cfg
		},
	} {
		t.Run(name, func(t *testing.T) {
			issuertest.Run(t, func(t *testing.T) issuertest.Rig {
				v := vaulttest.New(t)
				return issuertest.Rig{Issuer: open(t, config(t, v)), Rotate: func(context.Context) { v.Rotate() }, Away: v.Close, Secrets: []string{v.Token, v.RoleID, v.SecretID}}
			})
		})
	}
}

// TestErrors: what goes wrong is told with what to do; only what may go well at once is tried again.
func TestErrors(t *testing.T) {
	v := vaulttest.New(t)
	r, _ := issuertest.Request(t, "cart")
	fails := func(what string, cfg vault.Config, again bool, want ...string) {
		t.Helper()
		_, err := open(t, cfg).Sign(t.Context(), r)
		for _, w := range append(want, "Vault at "+v.URL) {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", what, err, w)
			}
		}
		if issuer.Again(err) != again {
			t.Errorf("%s: again %v", what, !again)
		}
		for _, secret := range []string{v.Token, v.SecretID} {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: a secret is in the error", what)
			}
		}
	}
	cfg := config(t, v)
	cfg.TokenFile = file(t, "token", "hvs.wrong")
	fails("a wrong token", cfg, false, "403 permission denied", "policy")
	cfg = config(t, v)
	cfg.Role = "other"
	fails("another role", cfg, false, "unknown role: other")
	cfg = config(t, v)
	cfg.Mount = "elsewhere"
	fails("another mount", cfg, false, "404", "mount and role")
	cfg = approle(t, v)
	cfg.SecretIDFile = file(t, "secret", "wrong")
	fails("a wrong secret ID", cfg, false, "invalid role or secret ID")
	cfg = config(t, v)
	cfg.CAFile = file(t, "ca.pem", string(issuertest.NewTree(t, "other").RootPEM()))
	fails("another server", cfg, false, "not believed", cfg.CAFile)
	v.Allow("spiffe://other/*")
	fails("a name that the role does not allow", config(t, v), false, "not allowed by this role", "allowed_uri_sans")
	v.Seal(true)
	fails("sealed", config(t, v), true, "503", "sealed", "unseal")
}

// TestLogin: one token by AppRole is used for many questions, and replaced when it is not good any more.
func TestLogin(t *testing.T) {
	v := vaulttest.New(t)
	i := open(t, approle(t, v))
	r, _ := issuertest.Request(t, "cart")
	for n, want := range []int{1, 1, 2} {
		if n == 2 {
			v.EndLogins()
		}
		if _, err := i.Sign(t.Context(), r); err != nil || v.LoginCount() != want {
			t.Errorf("call %d: %v after %d logins, want %d", n, err, v.LoginCount(), want)
		}
	}
}

// TestRootFile: a mount without its root needs it from a file.
func TestRootFile(t *testing.T) {
	v := vaulttest.New(t)
	v.HideRoot()
	cfg := config(t, v)
	if _, err := open(t, cfg).Roots(t.Context()); err == nil || !strings.Contains(err.Error(), "import the root") {
		t.Errorf("%v", err)
	}
	cfg.Roots = file(t, "root.pem", string(issuertest.PEM(v.Root())))
	if roots, err := open(t, cfg).Roots(t.Context()); err != nil || len(roots) != 1 || !roots[0].Equal(v.Root()) {
		t.Errorf("%v, %v", roots, err)
	}
}

func TestConfig(t *testing.T) {
	v := vaulttest.New(t)
	for what, change := range map[string]func(*vault.Config){
		"no role":               func(c *vault.Config) { c.Role = "" },
		"both ways":             func(c *vault.Config) { c.RoleIDFile, c.SecretIDFile = c.TokenFile, c.TokenFile },
		"no secret":             func(c *vault.Config) { c.TokenFile = "" },
		"plain HTTP":            func(c *vault.Config) { c.Address = "http://vault.example:8200" },
		"password in the URL":   func(c *vault.Config) { c.Address = "https://me:hush@vault.example" },
		"a path in the role":    func(c *vault.Config) { c.Role = "../sys" },
		"slashes":               func(c *vault.Config) { c.Mount = "/pki/" },
		"a token for everybody": func(c *vault.Config) { _ = os.Chmod(c.TokenFile, 0o644) },
	} {
		cfg := config(t, v)
		change(&cfg)
		if _, err := vault.New(cfg); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
