// Package vault is a PKI secrets engine of Vault, or of OpenBao, as an issuer, over its HTTP API: sign and ca_chain of one mount, with a
// token from a file or by AppRole. Secrets are read from their files whenever they are needed and are in no message. Safe for
// concurrent use; no goroutine. Start reading at Issuer.Sign. Its tests run against vaulttest, a fake; test/conformance/vault runs it against
// Vault itself.
package vault

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/web"
)

// Config of an issuer. Address, Role, and either TokenFile or both of RoleIDFile and SecretIDFile are needed.
type Config struct {
	Address   string // https://host:8200
	CAFile    string // of the server's certificate, PEM; "": the machine's roots
	Namespace string // of Vault Enterprise or OpenBao; "": none
	Mount     string // of the engine; "": pki
	Role      string
	Verbatim  bool // sign-verbatim/ROLE instead of sign/ROLE

	TokenFile                string // read again for every question: an agent may keep it fresh
	RoleIDFile, SecretIDFile string
	AuthMount                string // of AppRole; "": approle

	Roots string // file with roots to believe besides those that the mount has, PEM; "": none
}

// Issuer is an open one.
type Issuer struct {
	cfg Config
	web *web.Client

	session session
}

// New makes an issuer; it asks nobody yet.
func New(cfg Config) (*Issuer, error) {
	if cfg.Mount == "" {
		cfg.Mount = "pki"
	}
	if cfg.AuthMount == "" {
		cfg.AuthMount = "approle"
	}
	roles := cfg.RoleIDFile != "" && cfg.SecretIDFile != ""
	if cfg.Role == "" || roles == (cfg.TokenFile != "") || !roles && cfg.RoleIDFile+cfg.SecretIDFile != "" {
		return nil, errors.New("vault: a role is needed (--issuer-role), and either a file with a token (--issuer-token-file) or files with a role ID and a secret ID (--issuer-role-id-file, --issuer-secret-id-file)")
	}
	for what, s := range map[string]string{"mount": cfg.Mount, "role": cfg.Role, "mount of AppRole": cfg.AuthMount} {
		if s != strings.Trim(s, "/") || strings.ContainsAny(s, "?#% \t\r\n") || strings.Contains(s, "..") || what == "role" && strings.Contains(s, "/") {
			return nil, fmt.Errorf("vault: %s %q: write it as in 'vault write MOUNT/sign/ROLE', without slashes around it", what, s)
		}
	}
	for _, path := range []string{cfg.TokenFile, cfg.RoleIDFile, cfg.SecretIDFile} {
		if path != "" {
			if _, err := issuer.ReadSecret(path); err != nil {
				return nil, fmt.Errorf("vault: %w", err)
			}
		}
	}
	if _, err := issuer.ReadRoots(cfg.Roots); err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	c, err := web.New(cfg.Address, cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return &Issuer{cfg: cfg, web: c, session: session{turn: make(chan struct{}, 1)}}, nil
}

// Name implements issuer.Issuer.
func (i *Issuer) Name() string {
	return fmt.Sprintf("Vault at %s, mount %s, role %s", i.web.Base, i.cfg.Mount, i.cfg.Role)
}

// Close implements issuer.Issuer.
func (i *Issuer) Close() { i.web.Close() }

func (i *Issuer) wrong(what string, err error) error {
	return &issuer.Error{Issuer: i.Name(), What: what, Err: err}
}

// signed is what sign answers.
type signed struct {
	Data struct {
		Certificate string   `json:"certificate"`
		IssuingCA   string   `json:"issuing_ca"`
		Chain       []string `json:"ca_chain"`
	} `json:"data"`
}

// Sign implements issuer.Issuer.
func (i *Issuer) Sign(ctx context.Context, r issuer.Request) (*ca.Issued, error) {
	what := "sign " + r.ID.String()
	if _, err := r.Parse(); err != nil {
		return nil, i.wrong(what, err)
	}
	ask := map[string]any{"csr": string(issuer.EncodeCSR(r.CSR)), "ttl": fmt.Sprintf("%ds", int(r.TTL.Seconds())), "uri_sans": r.ID.String(),
		"exclude_cn_from_sans": true, "format": "pem"}
	verb := "sign"
	if i.cfg.Verbatim {
		verb = "sign-verbatim"
		ask["key_usage"], ask["ext_key_usage"] = []string{"DigitalSignature"}, []string{"ServerAuth", "ClientAuth"}
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, i.wrong(what, err)
	}
	answer, err := i.authorized(ctx, r.Now, what, i.cfg.Mount+"/"+verb+"/"+i.cfg.Role, body)
	if err != nil {
		return nil, err
	}
	var s signed
	if err := json.Unmarshal(answer, &s); err != nil {
		return nil, i.wrong(what, errors.New("its answer is no JSON of Vault's"))
	}
	list, err := issuer.Certificates([]byte(strings.Join(append([]string{s.Data.Certificate, s.Data.IssuingCA}, s.Data.Chain...), "\n")))
	if err != nil {
		return nil, i.wrong(what, fmt.Errorf("the certificates in its answer: %w", err))
	}
	var once []*x509.Certificate // issuing_ca is in ca_chain too
	for _, c := range list {
		if !issuer.Holds(once, c) {
			once = append(once, c)
		}
	}
	return &ca.Issued{Chain: issuer.Chain(once), NotBefore: once[0].NotBefore, NotAfter: once[0].NotAfter}, nil
}

// Roots implements issuer.Issuer: those in the chain of the mount, and those in the file.
func (i *Issuer) Roots(ctx context.Context) ([]*x509.Certificate, error) {
	const what = "read its roots"
	list, err := issuer.ReadRoots(i.cfg.Roots)
	if err != nil {
		return nil, i.wrong(what, err)
	}
	for _, path := range []string{"/ca_chain", "/ca/pem"} { // an old Vault answers the former only below another mount
		text, err := i.web.Do(ctx, web.Question{Issuer: i.Name(), What: what, Method: http.MethodGet, Path: "/v1/" + i.cfg.Mount + path, Header: i.header(""), Say: refusal(reading)})
		if err != nil {
			return nil, err
		}
		if len(strings.TrimSpace(string(text))) == 0 {
			continue
		}
		more, err := issuer.Certificates(text)
		if err != nil {
			return nil, i.wrong(what, fmt.Errorf("%s: %w", path, err))
		}
		list = append(list, more...)
	}
	roots, err := issuer.RootsOf(list)
	if err != nil {
		return nil, &issuer.Error{Issuer: i.Name(), What: what, Err: err, Next: "import the root into the mount, or give a file with it"}
	}
	return roots, nil
}

// header answers the fields of a question.
func (i *Issuer) header(token string) http.Header {
	h := http.Header{"X-Vault-Request": {"true"}}
	if i.cfg.Namespace != "" {
		h["X-Vault-Namespace"] = []string{i.cfg.Namespace}
	}
	if token != "" {
		h["X-Vault-Token"] = []string{token}
	}
	return h
}

// authorized asks with a token; one by AppRole that is not good any more is replaced once.
func (i *Issuer) authorized(ctx context.Context, now time.Time, what, path string, body []byte) ([]byte, error) {
	bad := ""
	for {
		token, err := i.secret(ctx, now, bad)
		if err != nil {
			return nil, err
		}
		answer, err := i.web.Do(ctx, web.Question{Issuer: i.Name(), What: what, Method: http.MethodPost, Path: "/v1/" + path, Header: i.header(token), Body: body, Say: refusal(signing(path))})
		if bad == "" && i.cfg.TokenFile == "" && refusedWith(err, http.StatusForbidden) {
			bad = token
			continue
		}
		return answer, err
	}
}

// refusedWith reports whether an error is a refusal with a status.
func refusedWith(err error, status int) bool {
	e, ok := errors.AsType[*issuer.Error](err)
	return ok && strings.HasPrefix(e.Err.Error(), fmt.Sprintf("%d ", status))
}

// secret answers the token to show, which is not a bad one.
func (i *Issuer) secret(ctx context.Context, now time.Time, bad string) (string, error) {
	if i.cfg.TokenFile == "" {
		return i.byRole(ctx, now, bad)
	}
	token, err := issuer.ReadSecret(i.cfg.TokenFile)
	if err != nil {
		return "", i.wrong(getToken, err)
	}
	return token, nil
}
