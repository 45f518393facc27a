// Package stepca is smallstep's step-ca as an issuer, over its HTTP API: each certificate is asked for with a one-time token that a JWK
// provisioner's key signs. The key is read from its file whenever one is needed, and is in no message. Safe for concurrent use; no
// goroutine. Start reading at Issuer.Sign. test/conformance/stepca runs it against the real program.
package stepca

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tulle-mesh/tulle/control/ca"
	"github.com/tulle-mesh/tulle/control/ca/issuer"
	"github.com/tulle-mesh/tulle/control/ca/issuer/web"
)

// Config of an issuer. Address, CAFile, Provisioner and Key are needed.
type Config struct {
	Address     string // https://host:9000
	CAFile      string // step-ca's root, PEM: its own certificate is below it
	Provisioner string // name of a JWK provisioner
	Key         string // file: its private key as JWK, in the clear or encrypted with a password (JWE), mode 0600
	Password    string // file: that password; "": the key is in the clear
	Roots       string // file with roots to believe besides those that step-ca has, PEM; "": none
}

// Issuer is an open one.
type Issuer struct {
	cfg Config
	web *web.Client
}

// New makes an issuer; it asks nobody yet.
func New(cfg Config) (*Issuer, error) {
	if cfg.Provisioner == "" || cfg.Key == "" || cfg.CAFile == "" {
		return nil, errors.New("step-ca: the name of a JWK provisioner (--issuer-provisioner), a file with its key (--issuer-key) and one with step-ca's root (--issuer-ca) are needed")
	}
	if _, err := readKey(cfg); err != nil {
		return nil, fmt.Errorf("step-ca: %w", err)
	}
	if _, err := issuer.ReadRoots(cfg.Roots); err != nil {
		return nil, fmt.Errorf("step-ca: %w", err)
	}
	c, err := web.New(cfg.Address, cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("step-ca: %w", err)
	}
	return &Issuer{cfg: cfg, web: c}, nil
}

// Name implements issuer.Issuer.
func (i *Issuer) Name() string {
	return fmt.Sprintf("step-ca at %s, provisioner %s", i.web.Base, i.cfg.Provisioner)
}

// Close implements issuer.Issuer.
func (i *Issuer) Close() { i.web.Close() }

func (i *Issuer) wrong(what string, err error) error {
	return &issuer.Error{Issuer: i.Name(), What: what, Err: err}
}

// readKey reads the provisioner's key.
func readKey(cfg Config) (*jose.JSONWebKey, error) {
	text, err := ca.ReadSecret(cfg.Key)
	if err != nil {
		return nil, err
	}
	text = []byte(strings.TrimSpace(string(text)))
	if cfg.Password != "" {
		password, err := issuer.ReadSecret(cfg.Password)
		if err != nil {
			return nil, err
		}
		jwe, err := jose.ParseEncrypted(string(text),
			[]jose.KeyAlgorithm{jose.PBES2_HS256_A128KW, jose.PBES2_HS384_A192KW, jose.PBES2_HS512_A256KW},
			[]jose.ContentEncryption{jose.A128GCM, jose.A192GCM, jose.A256GCM, jose.A128CBC_HS256, jose.A256CBC_HS512})
		if err != nil {
			return nil, fmt.Errorf("%s: it is no key encrypted with a password (JWE)", cfg.Key)
		}
		if text, err = jwe.Decrypt([]byte(password)); err != nil {
			return nil, fmt.Errorf("%s: the password in %s does not open it", cfg.Key, cfg.Password)
		}
	}
	var key jose.JSONWebKey
	if err := json.Unmarshal(text, &key); err != nil {
		return nil, fmt.Errorf("%s: it is no key (JWK); one with a password needs a file with that", cfg.Key)
	}
	if key.IsPublic() || !key.Valid() || key.KeyID == "" {
		return nil, fmt.Errorf("%s: a private key with a key ID (kid) is expected", cfg.Key)
	}
	return &key, nil
}

// Lifetimes of a one-time token: step-ca grants a minute of skew.
const tokenTTL = 2 * time.Minute

// maxName bounds a common name (X.520 ub-common-name).
const maxName = 64

// token makes a one-time token for an identity.
func (i *Issuer) token(r issuer.Request) (string, error) {
	key, err := readKey(i.cfg)
	if err != nil {
		return "", err
	}
	algorithm := jose.SignatureAlgorithm(key.Algorithm)
	if algorithm == "" {
		algorithm = jose.ES256
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("%s: it does not sign with %s", i.cfg.Key, algorithm)
	}
	var once [16]byte
	rand.Read(once[:])
	subject := r.ID.Namespace + "/" + r.ID.ServiceAccount
	now := time.Now()
	claims, err := json.Marshal(map[string]any{"iss": i.cfg.Provisioner, "aud": i.web.Base + "/1.0/sign", "sub": subject[:min(len(subject), maxName)], "sans": []string{r.ID.String()},
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(tokenTTL).Unix(), "jti": hex.EncodeToString(once[:])})
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		return "", errors.New("the token cannot be signed")
	}
	return jws.CompactSerialize()
}

// Sign implements issuer.Issuer.
func (i *Issuer) Sign(ctx context.Context, r issuer.Request) (*ca.Issued, error) {
	what := "sign " + r.ID.String()
	if _, err := r.Parse(); err != nil {
		return nil, i.wrong(what, err)
	}
	token, err := i.token(r)
	if err != nil {
		return nil, i.wrong(what, err)
	}
	body, err := json.Marshal(map[string]string{"csr": string(issuer.EncodeCSR(r.CSR)), "ott": token, "notAfter": r.TTL.String()})
	if err != nil {
		return nil, i.wrong(what, err)
	}
	answer, err := i.web.Do(ctx, web.Question{Issuer: i.Name(), What: what, Method: http.MethodPost, Path: "/1.0/sign", Body: body, Say: say})
	if err != nil {
		return nil, err
	}
	var signed struct {
		Certificate string   `json:"crt"`
		Authority   string   `json:"ca"`
		Chain       []string `json:"certChain"`
	}
	if err := json.Unmarshal(answer, &signed); err != nil {
		return nil, i.wrong(what, errors.New("its answer is no JSON of step-ca's"))
	}
	if len(signed.Chain) == 0 {
		signed.Chain = []string{signed.Certificate, signed.Authority}
	}
	list, err := issuer.Certificates([]byte(strings.Join(signed.Chain, "\n")))
	if err != nil {
		return nil, i.wrong(what, fmt.Errorf("the certificates in its answer: %w", err))
	}
	return &ca.Issued{Chain: issuer.Chain(list), NotBefore: list[0].NotBefore, NotAfter: list[0].NotAfter}, nil
}

// Roots implements issuer.Issuer.
func (i *Issuer) Roots(ctx context.Context) ([]*x509.Certificate, error) {
	const what = "read its roots"
	list, err := issuer.ReadRoots(i.cfg.Roots)
	if err != nil {
		return nil, i.wrong(what, err)
	}
	answer, err := i.web.Do(ctx, web.Question{Issuer: i.Name(), What: what, Method: http.MethodGet, Path: "/1.0/roots", Say: say})
	if err != nil {
		return nil, err
	}
	var roots struct {
		Certificates []string `json:"crts"`
	}
	if err := json.Unmarshal(answer, &roots); err != nil {
		return nil, i.wrong(what, errors.New("its answer is no JSON of step-ca's"))
	}
	more, err := issuer.Certificates([]byte(strings.Join(roots.Certificates, "\n")))
	if err == nil {
		list, err = issuer.RootsOf(append(list, more...))
	}
	if err != nil {
		return nil, i.wrong(what, err)
	}
	return list, nil
}

// say reads a refusal.
func say(status int, body []byte) (said, next string) {
	var e struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal(body, &e); err == nil {
		said = e.Message
	}
	switch status {
	case http.StatusUnauthorized:
		next = "is the key that of this JWK provisioner, is the provisioner's name right, do the clocks agree, and is the host in the address among step-ca's dnsNames?"
	case http.StatusForbidden, http.StatusBadRequest:
		next = "do the provisioner's claims and policy allow this lifetime and this name?"
	case http.StatusNotFound:
		next = "is this the address of step-ca?"
	}
	return said, next
}
