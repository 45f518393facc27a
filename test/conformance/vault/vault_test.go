//go:build conformance && vault

// Package vault has the real Vault sign, with exactly the role and the policy that docs/guides/issuers.md has: the contract of issuers,
// what goes wrong, and a mesh whose workloads get their identities from it, also while its root is replaced and while it is sealed.
package vault

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	base "github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
	issuer "github.com/tulle-mesh/tulle/control/ca/issuer/vault"
	"github.com/tulle-mesh/tulle/identity/svid"
	"github.com/tulle-mesh/tulle/test/conformance/signed"
	"github.com/tulle-mesh/tulle/test/conformance/subject"
)

// server is a real Vault with the mounts "root", which has roots, and "pki", which has intermediates below them.
type server struct {
	t       *testing.T
	dir     string
	process *subject.Process
	root    *api // with the root token
	key     string
	roots   int
	cfg     issuer.Config // with the token of the guide
	role    issuer.Config // with AppRole
	secrets []string
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir()}
	address := fmt.Sprintf("127.0.0.1:%d", subject.Port(t))
	ca, cert, key := s.certificate()
	s.process = subject.Run(t, "vault", nil, subject.Binary(t, "vault"), address, cert, key)
	s.cfg = issuer.Config{Address: "https://" + address, CAFile: ca, Role: "mesh"}
	var err error
	if s.root, err = newAPI(s.cfg.Address, ca, ""); err != nil {
		t.Fatal(err)
	}
	s.process.Wait("answers", func() error {
		_, err := s.root.do(http.MethodGet, "sys/seal-status", nil)
		return err
	})
	made := s.do(http.MethodPut, "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1})
	s.root.token, s.key = made.RootToken, made.Keys[0]
	s.unseal()
	s.process.Wait("is active", func() error {
		_, err := s.root.do(http.MethodGet, "sys/health", nil)
		return err
	})
	for _, mount := range []string{"root", "pki"} {
		s.do(http.MethodPost, "sys/mounts/"+mount, map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"}})
	}
	s.rotate()
	s.guide()
	return s
}

// certificate makes one for the server, and answers the files with its authority, it, and its key.
func (s *server) certificate() (ca, cert, key string) {
	s.t.Helper()
	tree := issuertest.NewTree(s.t, "vault's own")
	k, err := svid.NewKey()
	if err != nil {
		s.t.Fatal(err)
	}
	leaf := tree.Sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, k.Public())
	below := issuertest.Tree{Key: k}
	return s.write("ca.pem", string(tree.RootPEM())), s.write("cert.pem", string(issuertest.PEM(leaf))), s.write("key.pem", string(below.KeyPEM()))
}

func (s *server) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *server) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (s *server) do(method, path string, body any) answer {
	s.t.Helper()
	out, err := s.root.do(method, path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *server) unseal() {
	s.t.Helper()
	if out := s.do(http.MethodPut, "sys/unseal", map[string]any{"key": s.key}); out.Sealed {
		s.t.Fatal("still sealed")
	}
}

func (s *server) seal() {
	s.t.Helper()
	s.do(http.MethodPut, "sys/seal", nil)
}

// rotate makes a root and an intermediate below it, and has the mount sign with that.
func (s *server) rotate() {
	s.t.Helper()
	s.rotateFor("4380h")
}

// rotateFor does so with an intermediate that lasts so long.
func (s *server) rotateFor(life string) {
	s.t.Helper()
	s.choose(s.prepare(life))
}

// prepare makes a root and an intermediate below it, in the mount "pki" too, and answers the latter's ID there.
func (s *server) prepare(life string) string {
	s.t.Helper()
	s.roots++
	name := fmt.Sprintf("root-%d", s.roots)
	s.do(http.MethodPost, "root/root/rotate/internal", map[string]any{"common_name": name, "issuer_name": name, "key_type": "ec", "ttl": "8760h"})
	csr := s.do(http.MethodPost, "pki/intermediate/generate/internal", map[string]any{"common_name": "intermediate of " + name, "key_type": "ec"})
	signed := s.do(http.MethodPost, "root/issuer/"+name+"/sign-intermediate", map[string]any{"csr": csr.field("csr"), "format": "pem_bundle", "ttl": life, "common_name": "intermediate of " + name})
	set := s.do(http.MethodPost, "pki/intermediate/set-signed", map[string]any{"certificate": signed.field("certificate")})
	for issuer, key := range set.Data["mapping"].(map[string]any) {
		if key != "" {
			return issuer
		}
	}
	s.t.Fatalf("no issuer with a key: %v", set.Data)
	return ""
}

// choose has the mount sign with an issuer.
func (s *server) choose(id string) {
	s.t.Helper()
	s.do(http.MethodPost, "pki/config/issuers", map[string]any{"default": id})
}

// current answers the root that was made last.
func (s *server) current() *x509.Certificate {
	s.t.Helper()
	list, err := base.Certificates([]byte(s.do(http.MethodGet, fmt.Sprintf("root/issuer/root-%d", s.roots), nil).field("certificate")))
	if err != nil {
		s.t.Fatal(err)
	}
	return list[0]
}

// guide does what the guide says, and takes the token, the role ID and the secret ID that come of it.
func (s *server) guide() {
	s.t.Helper()
	const name = "<!-- what Vault needs -->\n```sh\n"
	guide, err := os.ReadFile("../../../docs/guides/issuers.md")
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(guide), name)
	script, _, ended := strings.Cut(rest, "```")
	if !ok || !ended {
		s.t.Fatalf("docs/guides/issuers.md has no %q", name)
	}
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(s.dir, "vault")); err != nil {
		s.t.Fatal(err)
	}
	c := exec.Command("sh", "-eu", "-c", script)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "PATH="+s.dir+":"+os.Getenv("PATH"), "VAULT_ADDR="+s.cfg.Address, "VAULT_CACERT="+s.cfg.CAFile, "VAULT_TOKEN="+s.root.token)
	if out, err := c.CombinedOutput(); err != nil {
		s.t.Fatalf("the guide's script: %v: %s", err, out)
	}
	s.role = s.cfg
	s.role.RoleIDFile, s.role.SecretIDFile = filepath.Join(s.dir, "role-id"), filepath.Join(s.dir, "secret-id")
	s.cfg.TokenFile = filepath.Join(s.dir, "token")
	s.secrets = []string{s.root.token, s.key, s.read("token"), s.read("secret-id"), s.read("role-id")}
}

// policy makes a policy and answers a file with a token that has it.
func (s *server) policy(name, rules string) string {
	s.t.Helper()
	s.do(http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": rules})
	return s.write("token-"+name, s.do(http.MethodPost, "auth/token/create", map[string]any{"policies": []string{name}}).Auth.Token)
}

// verbatim answers what signs with sign-verbatim, with as little as that needs.
func (s *server) verbatim() issuer.Config {
	s.t.Helper()
	cfg := s.cfg
	cfg.Verbatim = true
	cfg.TokenFile = s.policy("verbatim", `path "pki/sign-verbatim/mesh" { capabilities = ["update"] }`)
	s.secrets = append(s.secrets, s.read("token-verbatim"))
	return cfg
}

func (s *server) stop() { signed.Stop(s.t, s.process, os.Interrupt) }

func open(t *testing.T, cfg issuer.Config) *issuer.Issuer {
	t.Helper()
	i, err := issuer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

// TestContract: the contract of issuers, against the real program.
func TestContract(t *testing.T) {
	for name, config := range map[string]func(*server) issuer.Config{
		"token":    func(s *server) issuer.Config { return s.cfg },
		"approle":  func(s *server) issuer.Config { return s.role },
		"verbatim": (*server).verbatim,
	} {
		t.Run(name, func(t *testing.T) {
			issuertest.Run(t, func(t *testing.T) issuertest.Rig {
				s := newServer(t)
				i, err := issuer.New(config(s))
				if err != nil {
					t.Fatal(err)
				}
				return issuertest.Rig{Issuer: i, Rotate: func(context.Context) { s.rotate() }, Away: s.stop, Secrets: s.secrets}
			})
		})
	}
}

// TestErrors: what goes wrong is told with what to do; only what may go well at once is tried again.
func TestErrors(t *testing.T) {
	s := newServer(t)
	r, _ := issuertest.Request(t, "cart")
	fails := func(what string, change func(*issuer.Config), again bool, want ...string) {
		t.Helper()
		cfg := s.cfg
		change(&cfg)
		_, err := open(t, cfg).Sign(t.Context(), r)
		s.says(what, err, again, want...)
	}
	fails("a wrong token", func(c *issuer.Config) { c.TokenFile = s.write("wrong", "hvs.wrong") }, false, "403", "invalid token", "is the token good?")
	fails("another role", func(c *issuer.Config) { c.Role = "other" }, false, "403", "permission denied", `'update' on pki/sign/other`)
	fails("another mount", func(c *issuer.Config) { c.Mount = "elsewhere" }, false, "403", "permission denied", `'update' on elsewhere/sign/mesh`)
	fails("verbatim without a policy", func(c *issuer.Config) { c.Verbatim = true }, false, "403", "permission denied", `'update' on pki/sign-verbatim/mesh`)
	all := s.policy("all", `path "*" { capabilities = ["update"] }`)
	fails("a role that is not there", func(c *issuer.Config) { c.TokenFile, c.Role = all, "other" }, false, "400 unknown role: other", "is the role right?")
	fails("a mount that is not there", func(c *issuer.Config) { c.TokenFile, c.Mount = all, "elsewhere" }, false, "404", "are mount and role right?")
	fails("a mount without an authority", func(c *issuer.Config) {
		s.do(http.MethodPost, "sys/mounts/empty", map[string]any{"type": "pki"})
		s.do(http.MethodPost, "empty/roles/mesh", map[string]any{"allow_any_name": true, "require_cn": false, "allowed_uri_sans": "*", "key_type": "ec"})
		c.TokenFile, c.Mount = all, "empty"
	}, true, "500 could not fetch the CA certificate", "does the mount have an issuer that may sign?") // Vault calls it an error of its own
	approle := func(change func(*issuer.Config)) func(*issuer.Config) {
		return func(c *issuer.Config) { *c = s.role; change(c) }
	}
	wrong := s.write("wrong-id", "3f1cd4c2-0000-4000-8000-2b1b1b1b1b1b")
	fails("a wrong secret ID", approle(func(c *issuer.Config) { c.SecretIDFile = wrong }), false, "get a token", "400 invalid role or secret ID", "are role ID and secret ID those of the AppRole?")
	fails("a wrong role ID", approle(func(c *issuer.Config) { c.RoleIDFile = wrong }), false, "get a token", "400 invalid role or secret ID", "are role ID and secret ID those of the AppRole?")
	fails("another mount of AppRole", approle(func(c *issuer.Config) { c.AuthMount = "elsewhere" }), false, "get a token", "403", "is the mount of AppRole right?")
	if _, err := open(t, with(s.cfg, func(c *issuer.Config) { c.Mount = "elsewhere" })).Roots(t.Context()); err == nil {
		t.Error("roots of another mount")
	} else {
		s.says("roots of another mount", err, false, "is the mount right?")
	}
	fails("another server", func(c *issuer.Config) {
		c.CAFile = s.write("other.pem", string(issuertest.NewTree(t, "other").RootPEM()))
	}, false, "not believed", "other.pem")
	s.bounds(fails)
	s.rotateFor("30m")
	fails("an issuer that ends before the certificate", func(*issuer.Config) {}, false, "400", "beyond the expiration", "renew the issuer")
	s.rotate()
	s.seal()
	fails("sealed", func(*issuer.Config) {}, true, "503", "Vault is sealed", "unseal it")
	fails("sealed, at the login", approle(func(*issuer.Config) {}), true, "503", "Vault is sealed", "unseal it")
	s.unseal()
	s.process.Wait("signs again", func() error {
		_, err := open(t, s.cfg).Sign(t.Context(), r)
		return err
	})
}

// TestLocked: after wrong secret IDs Vault refuses the right one too, and that is told.
func TestLocked(t *testing.T) {
	s := newServer(t)
	r, _ := issuertest.Request(t, "cart")
	wrong := with(s.role, func(c *issuer.Config) { c.SecretIDFile = s.write("wrong", "wrong") })
	for range 5 {
		_, err := open(t, wrong).Sign(t.Context(), r)
		s.says("a wrong secret ID", err, false, "400 invalid role or secret ID")
	}
	_, err := open(t, s.role).Sign(t.Context(), r)
	s.says("too many of them", err, false, "403 permission denied", "several wrong secret IDs")
}

// TestWrongSecret: the issuer shows a wrong secret ID so rarely that Vault takes the right one when it is there.
func TestWrongSecret(t *testing.T) {
	s := newServer(t)
	r, _ := issuertest.Request(t, "cart")
	right := s.read("secret-id")
	s.write("secret-id", "wrong")
	i := open(t, s.role)
	for range 20 {
		_, err := i.Sign(t.Context(), r)
		s.says("a wrong secret ID", err, false, "400 invalid role or secret ID")
	}
	s.write("secret-id", right)
	if _, err := i.Sign(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// bounds: what the role does not allow.
func (s *server) bounds(fails func(what string, change func(*issuer.Config), again bool, want ...string)) {
	s.t.Helper()
	role := s.do(http.MethodGet, "pki/roles/mesh", nil).Data
	for what, c := range map[string]struct {
		change map[string]any
		want   []string
	}{
		"a name that the role does not allow": {map[string]any{"allowed_uri_sans": "spiffe://other/*"}, []string{"400", "not valid for this role", "allowed_uri_sans"}},
		"a role without names":                {map[string]any{"allowed_uri_sans": ""}, []string{"400", "not allowed in this role", "allowed_uri_sans"}},
		"a role that wants a common name":     {map[string]any{"require_cn": true}, []string{"400", "require_cn"}},
		"a role for other keys":               {map[string]any{"key_type": "rsa", "key_bits": 2048}, []string{"400", "key_type=ec"}},
	} {
		changed := maps.Clone(role)
		maps.Copy(changed, c.change)
		s.do(http.MethodPost, "pki/roles/mesh", changed)
		fails(what, func(*issuer.Config) {}, false, c.want...)
	}
	s.do(http.MethodPost, "pki/roles/mesh", role)
}

func with(cfg issuer.Config, change func(*issuer.Config)) issuer.Config {
	change(&cfg)
	return cfg
}

// says holds an error to what it must say.
func (s *server) says(what string, err error, again bool, want ...string) {
	s.t.Helper()
	for _, w := range append(want, "Vault at "+s.cfg.Address) {
		if err == nil || !strings.Contains(err.Error(), w) {
			s.t.Errorf("%s: %v, want %q", what, err, w)
		}
	}
	if base.Again(err) != again {
		s.t.Errorf("%s: again %v", what, !again)
	}
	for _, secret := range s.secrets {
		if err != nil && strings.Contains(err.Error(), secret) {
			s.t.Errorf("%s: a secret is in the error", what)
		}
	}
}

// TestPolicy: the policy of the guide allows to sign with the role, and nothing else of the mount.
func TestPolicy(t *testing.T) {
	s := newServer(t)
	a := *s.root
	a.token = s.read("token")
	paths := []string{"pki/sign/mesh", "pki/sign/other", "pki/sign-verbatim/mesh", "pki/issue/mesh", "pki/roles/mesh", "pki/config/issuers", "pki/issuers/import/bundle", "pki/revoke",
		"pki/root/generate/internal", "root/sign/mesh", "auth/approle/role/mesh/secret-id", "sys/policies/acl/mesh"}
	out, err := a.do(http.MethodPost, "sys/capabilities-self", map[string]any{"paths": paths})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		want := "[deny]"
		if path == "pki/sign/mesh" {
			want = "[update]"
		}
		if got := fmt.Sprint(out.Data[path]); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if out := s.do(http.MethodGet, "auth/approle/role/mesh", nil); fmt.Sprint(out.Data["token_policies"]) != "[mesh]" {
		t.Errorf("policies by AppRole: %v", out.Data["token_policies"])
	}
}

// TestLogin: a token by AppRole that Vault takes back is replaced at once.
func TestLogin(t *testing.T) {
	s := newServer(t)
	i := open(t, s.role)
	r, _ := issuertest.Request(t, "cart")
	if _, err := i.Sign(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, accessor := range s.do("LIST", "auth/token/accessors", nil).Data["keys"].([]any) {
		about := s.do(http.MethodPost, "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
		if about.Data["path"] == "auth/approle/login" {
			s.do(http.MethodPost, "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
		}
	}
	if _, err := i.Sign(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// TestRootFile: a mount without its root needs it from a file.
func TestRootFile(t *testing.T) {
	s := newServer(t)
	for _, id := range s.do("LIST", "pki/issuers", nil).Data["keys"].([]any) {
		if about := s.do(http.MethodGet, fmt.Sprintf("pki/issuer/%v", id), nil); about.Data["key_id"] == "" {
			s.do(http.MethodDelete, fmt.Sprintf("pki/issuer/%v", id), nil)
		}
	}
	if _, err := open(t, s.cfg).Roots(t.Context()); err == nil || !strings.Contains(err.Error(), "import the root") {
		t.Errorf("%v", err)
	}
	cfg := s.cfg
	cfg.Roots = s.write("root.pem", string(issuertest.PEM(s.current())))
	i := open(t, cfg)
	roots, err := i.Roots(t.Context())
	if err != nil || len(roots) != 1 || !roots[0].Equal(s.current()) {
		t.Fatalf("%v, %v", roots, err)
	}
	r, _ := issuertest.Request(t, "cart")
	issued, err := i.Sign(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	r.Now = time.Now()
	if _, _, err := base.Check(issued, r, roots); err != nil {
		t.Error(err)
	}
}
