package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tulle-mesh/tulle/control/attest"
	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/external"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/folder"
	"github.com/tulle-mesh/tulle/control/ca/issuer/own"
	"github.com/tulle-mesh/tulle/control/ca/issuer/pemfile"
	"github.com/tulle-mesh/tulle/control/ca/issuer/spire"
	"github.com/tulle-mesh/tulle/control/ca/issuer/stepca"
	"github.com/tulle-mesh/tulle/control/ca/issuer/vault"
	"github.com/tulle-mesh/tulle/control/trust"
)

// authority is who signs the certificates of the mesh.
type authority interface {
	attest.Authority
	trust.Authority
}

// Kinds of issuers, as Issuer.Kind.
const (
	IssuerOwn    = "own"
	IssuerPEM    = "pem"
	IssuerVault  = "vault"
	IssuerStepCA = "step-ca"
	IssuerFolder = "csr-files"
	IssuerSPIRE  = "spire"
)

// Issuer says who signs certificates (docs/guides/issuers.md). Secrets are in files, never here.
type Issuer struct {
	Kind string // "": IssuerOwn; fields of other kinds are refused

	Address string // vault, step-ca: https://host:port; spire: host:port of the server's API
	CA      string // vault, step-ca: file with the authority of its own certificate; spire: with its bundle
	Roots   string // file with roots; pem, csr-files: those it signs below; vault, step-ca: further ones

	Cert, Key string // pem: files of the intermediate; step-ca: Key is the provisioner's (JWK)

	Mount, Role, Namespace   string // vault
	Verbatim                 bool   // vault
	Token                    string // vault: file; spire: file with a join token
	RoleIDFile, SecretIDFile string // vault: AppRole
	AuthMount                string // vault: of AppRole

	Provisioner, Password string // step-ca: name; file with the password of Key

	Folder, Ref string // csr-files
}

// Validate reports fields that a kind does not have.
func (i Issuer) Validate() error {
	allowed, ok := map[string]Issuer{
		"":           {},
		IssuerOwn:    {},
		IssuerPEM:    {Roots: i.Roots, Cert: i.Cert, Key: i.Key},
		IssuerStepCA: {Address: i.Address, CA: i.CA, Roots: i.Roots, Key: i.Key, Provisioner: i.Provisioner, Password: i.Password},
		IssuerFolder: {Roots: i.Roots, Folder: i.Folder, Ref: i.Ref},
		IssuerSPIRE:  {Address: i.Address, CA: i.CA, Token: i.Token},
		IssuerVault: {Address: i.Address, CA: i.CA, Roots: i.Roots, Mount: i.Mount, Role: i.Role, Namespace: i.Namespace, Verbatim: i.Verbatim, Token: i.Token,
			RoleIDFile: i.RoleIDFile, SecretIDFile: i.SecretIDFile, AuthMount: i.AuthMount},
	}[i.Kind]
	if !ok {
		return fmt.Errorf("%q: write %s, %s, %s, %s, %s or %s", i.Kind, IssuerOwn, IssuerPEM, IssuerVault, IssuerStepCA, IssuerFolder, IssuerSPIRE)
	}
	if allowed.Kind = i.Kind; allowed != i {
		return fmt.Errorf("%s: something is said that is for another issuer: docs/guides/issuers.md has what each needs", cmp.Or(i.Kind, IssuerOwn))
	}
	if i.Kind == IssuerPEM && (i.Cert == "" || i.Key == "" || i.Roots == "") {
		return fmt.Errorf("%s: the intermediate, its key and the roots are needed: name the files with --issuer-cert, --issuer-key and --issuer-roots", i.Kind)
	}
	return nil
}

func (i Issuer) own() bool { return i.Kind == "" || i.Kind == IssuerOwn }

// open makes the issuer; it keeps what it must in dir.
func (i Issuer) open(p *Plane, dir, trustDomain string) (issuer.Issuer, error) {
	switch i.Kind {
	case IssuerPEM:
		return pemfile.Open(pemfile.Config{Cert: i.Cert, Key: i.Key, Roots: i.Roots, TrustDomain: trustDomain, Dir: dir, Log: p.log}, time.Now())
	case IssuerVault:
		return vault.New(vault.Config{Address: i.Address, CAFile: i.CA, Namespace: i.Namespace, Mount: i.Mount, Role: i.Role, Verbatim: i.Verbatim,
			TokenFile: i.Token, RoleIDFile: i.RoleIDFile, SecretIDFile: i.SecretIDFile, AuthMount: i.AuthMount, Roots: i.Roots})
	case IssuerStepCA:
		return stepca.New(stepca.Config{Address: i.Address, CAFile: i.CA, Provisioner: i.Provisioner, Key: i.Key, Password: i.Password, Roots: i.Roots})
	case IssuerSPIRE:
		return spire.New(spire.Config{Address: i.Address, TrustDomain: trustDomain, Bundle: i.CA, Token: i.Token, Dir: dir, Log: p.log})
	case IssuerFolder:
		return folder.New(folder.Config{Dir: i.Folder, Roots: i.Roots, Ref: i.Ref})
	}
	return nil, i.Validate()
}

// openAuthority opens who signs: the mesh's own authority, or what stands before somebody else.
func (p *Plane) openAuthority(ctx context.Context, trustDomain string) (authority, error) {
	if err := p.cfg.Issuer.Validate(); err != nil {
		return nil, err
	}
	ours, theirs := filepath.Join(p.cfg.DataDir, "ca"), filepath.Join(p.cfg.DataDir, "issuer")
	if p.cfg.Issuer.own() {
		return p.ownAuthority(ctx, ours, theirs, trustDomain)
	}
	known, err := external.TrustDomain(theirs)
	if err != nil {
		return nil, err
	}
	cfg := p.external(theirs, cmp.Or(trustDomain, known))
	if _, err := os.Stat(ours); !errors.Is(err, fs.ErrNotExist) { // the mesh had an authority of its own
		before, err := p.openOwn(ours, cfg.TrustDomain)
		if err != nil {
			return nil, err
		}
		cfg.Before, cfg.TrustDomain = own.Issuer{CA: before}, before.TrustDomain()
	}
	cfg.TrustDomain = cmp.Or(cfg.TrustDomain, ca.DefaultTrustDomain)
	if cfg.Issuer, err = p.cfg.Issuer.open(p, theirs, cfg.TrustDomain); err != nil {
		return nil, err
	}
	return p.openExternal(ctx, cfg)
}

// external is the configuration of an authority without its issuer.
func (p *Plane) external(dir, trustDomain string) external.Config {
	cfg := external.Config{Dir: dir, TrustDomain: trustDomain, Aliases: p.mesh.aliases, Leaf: p.cfg.IdentityTTL, Log: p.log}
	if cfg.Leaf <= 0 {
		cfg.Leaf = ca.LeafTTL
	}
	return cfg
}

func (p *Plane) openExternal(ctx context.Context, cfg external.Config) (authority, error) {
	cfg.Self = attest.ServerID(cfg.TrustDomain)
	a, err := external.Open(ctx, cfg, time.Now())
	if err != nil {
		cfg.Issuer.Close()
		return nil, err
	}
	p.onClose(a.Close)
	return a, nil
}

// ownAuthority opens the mesh's own authority. Where somebody else has signed before it is an issuer as others are, until nothing but
// its root is believed: at the next start what was kept for the one before is removed.
func (p *Plane) ownAuthority(ctx context.Context, ours, theirs, trustDomain string) (authority, error) {
	known, err := external.TrustDomain(theirs)
	if err != nil {
		return nil, err
	}
	c, err := p.openOwn(ours, cmp.Or(trustDomain, known))
	if err != nil || known == "" {
		return attest.Local{CA: c}, err
	}
	switch over, err := external.Over(theirs, c.RootsDER()); {
	case err != nil:
		return nil, err
	case over:
		p.log.Info("the mesh's own authority signs alone again", "removed", theirs)
		return attest.Local{CA: c}, os.RemoveAll(theirs)
	}
	cfg := p.external(theirs, c.TrustDomain())
	cfg.Issuer = own.Issuer{CA: c}
	return p.openExternal(ctx, cfg)
}

func (p *Plane) openOwn(dir, trustDomain string) (*ca.CA, error) {
	return ca.Open(ca.Config{Dir: dir, TrustDomain: trustDomain, Aliases: p.mesh.aliases, Root: p.cfg.RootTTL, Intermediate: p.cfg.IntermediateTTL, Leaf: p.cfg.IdentityTTL}, time.Now())
}
