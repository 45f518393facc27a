package vault_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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
		for _, secret := range []string{v.Token, v.Operator, v.SecretID} {
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: a secret is in the error", what)
			}
		}
	}
	with := func(change func(*vault.Config)) vault.Config {
		cfg := config(t, v)
		change(&cfg)
		return cfg
	}
	fails("a wrong token", with(func(c *vault.Config) { c.TokenFile = file(t, "token", "hvs.wrong") }), false, "403 permission denied; invalid token: is the token good?")
	fails("another role", with(func(c *vault.Config) { c.Role = "other" }), false, "403 permission denied", "'update' on pki/sign/other?")
	fails("another mount", with(func(c *vault.Config) { c.Mount = "else/where" }), false, "403 permission denied", "'update' on else/where/sign/mesh?")
	all := file(t, "all", v.Operator)
	fails("a role that is not there", with(func(c *vault.Config) { c.TokenFile, c.Role = all, "other" }), false, "400 unknown role: other: is the role right?")
	fails("a mount that is not there", with(func(c *vault.Config) { c.TokenFile, c.Mount = all, "elsewhere" }), false, "404", "mount and role")
	cfg := config(t, v)
	cfg.CAFile = file(t, "ca.pem", string(issuertest.NewTree(t, "other").RootPEM()))
	fails("another server", cfg, false, "not believed", cfg.CAFile)
	if _, err := open(t, with(func(c *vault.Config) { c.Mount = "elsewhere" })).Roots(t.Context()); err == nil || !strings.Contains(err.Error(), "is the mount right?") {
		t.Errorf("roots of another mount: %v", err)
	}
	cfg = approle(t, v)
	cfg.AuthMount = "elsewhere"
	fails("another mount of AppRole", cfg, false, "get a token", "is the mount of AppRole right?")
	cfg = approle(t, v)
	cfg.SecretIDFile = file(t, "secret", "wrong")
	for range 5 {
		fails("a wrong secret ID", cfg, false, "invalid role or secret ID: are role ID and secret ID those of the AppRole?")
	}
	fails("too many of them", approle(t, v), false, "get a token", "403 permission denied", "several wrong secret IDs")
	v.Allow("spiffe://other/*")
	fails("a name that the role does not allow", config(t, v), false, "not valid for this role", "allowed_uri_sans")
	v.Seal(true)
	fails("sealed", config(t, v), true, "503", "sealed", "unseal")
}

// TestRefused: what the real program has said when it did not sign, and what there is to do.
func TestRefused(t *testing.T) {
	v := vaulttest.New(t)
	i := open(t, config(t, v))
	r, _ := issuertest.Request(t, "cart")
	for _, c := range []struct {
		status     int
		text, want string
	}{
		{400, "URI Subject Alternative Names are not allowed in this role, but were provided via CSR", "allowed_uri_sans"},
		{400, `the common_name field is required, or must be provided in a CSR with "use_csr_common_name" set to true, unless "require_cn" is set to false`, "require_cn=false"},
		{400, "role requires keys of type rsa", "key_type=ec"},
		{400, "cannot satisfy request, as TTL would result in notAfter of 2029-06-04T17:34:26.346461917Z that is beyond the expiration of the CA certificate at 2027-05-23T07:20:23Z", "renew the issuer"},
		{500, "1 error occurred:\n\t* could not fetch the CA certificate (was one set?): no default issuer currently configured\n\n", "500 could not fetch the CA certificate (was one set?): no default issuer currently configured: does the mount have an issuer"},
		{404, "1 error occurred:\n\t* unsupported path\n\n", "404 unsupported path: are mount and role right?"},
	} {
		v.Refuse(c.status, c.text)
		if _, err := i.Sign(t.Context(), r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
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

// TestWrongSecret: a secret ID that is refused is not shown so often that Vault locks the role ID; another one is shown at once.
func TestWrongSecret(t *testing.T) {
	v := vaulttest.New(t)
	cfg := approle(t, v)
	if err := os.WriteFile(cfg.SecretIDFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := open(t, cfg)
	r, _ := issuertest.Request(t, "cart")
	begin := r.Now
	for _, c := range []struct {
		after time.Duration
		shown int
	}{{0, 1}, {0, 1}, {14 * time.Second, 1}, {16 * time.Second, 2}, {time.Minute, 2}, {2 * time.Minute, 3}, {17 * time.Minute, 3}, {19 * time.Minute, 4}, {30 * time.Minute, 4}} {
		r.Now = begin.Add(c.after)
		_, err := i.Sign(t.Context(), r)
		if err == nil || !strings.Contains(err.Error(), "are role ID and secret ID those of the AppRole?") || issuer.Again(err) || v.Strikes() != c.shown {
			t.Errorf("after %s: shown %d times, want %d: %v", c.after, v.Strikes(), c.shown, err)
		}
	}
	if err := os.WriteFile(cfg.SecretIDFile, []byte(v.SecretID), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Sign(t.Context(), r); err != nil || v.Strikes() != 0 {
		t.Errorf("the right one: %v", err)
	}
}

// TestOneLogin: those who come together wait for one login.
func TestOneLogin(t *testing.T) {
	v := vaulttest.New(t)
	i := open(t, approle(t, v))
	var wg sync.WaitGroup
	for range 8 {
		r, _ := issuertest.Request(t, "cart")
		wg.Go(func() {
			if _, err := i.Sign(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if v.LoginCount() != 1 {
		t.Errorf("%d logins", v.LoginCount())
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
