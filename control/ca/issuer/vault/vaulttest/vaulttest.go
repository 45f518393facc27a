// Package vaulttest is a fake of what a PKI mount of Vault answers over HTTP, for tests: roles with their bounds, tokens and AppRole,
// sealing, and a root that is replaced. Its methods, paths, fields, codes and texts are those of Vault 1.21.0, which test/conformance/vault
// runs, as far as package vault depends on them, and it knows nothing else. Never use it outside tests. Start reading at New.
package vaulttest

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/control/ca/issuer/issuertest"
)

// Vault is a server with the mount "pki" and the role "mesh".
type Vault struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	tree     *issuertest.Tree
	Token    string // that may sign, and nothing else
	Operator string // token that may do everything
	RoleID   string
	SecretID string
	logins   map[string]time.Time // tokens by AppRole, and when they end
	lease    time.Duration
	sealed   bool
	allowed  string // glob of URIs
	maxTTL   time.Duration
	noRoot   bool
	Logins   int // how often somebody logged in
	strikes  int // wrong secret IDs since the last right one
	status   int // that signing is refused with; 0: it is not
	text     string
}

// New starts a server with TLS until the test ends.
func New(t testing.TB) *Vault {
	v := &Vault{t: t, Token: "hvs." + random(), Operator: "hvs." + random(), RoleID: random(), SecretID: random(), logins: map[string]time.Time{}, lease: time.Hour,
		allowed: "spiffe://" + issuertest.TrustDomain + "/*", maxTTL: 24 * time.Hour}
	v.Rotate()
	v.Server = httptest.NewTLSServer(http.HandlerFunc(v.serve))
	t.Cleanup(v.Close)
	return v
}

func random() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// ServerCA answers the authority of the server's own certificate, PEM.
func (v *Vault) ServerCA() []byte { return issuertest.PEM(v.Certificate()) }

// Rotate has the mount go over to a new root with a new intermediate.
func (v *Vault) Rotate() {
	tree := issuertest.NewTree(v.t, "vault root "+random())
	tree.Middle("vault intermediate")
	v.set(func() { v.tree = tree })
}

// Root answers the root in use.
func (v *Vault) Root() *x509.Certificate {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tree.Root
}

// Seal has the server be sealed, or not.
func (v *Vault) Seal(on bool) { v.set(func() { v.sealed = on }) }

// Allow sets allowed_uri_sans of the role.
func (v *Vault) Allow(glob string) { v.set(func() { v.allowed = glob }) }

// HideRoot has the chain of the mount end below the root.
func (v *Vault) HideRoot() { v.set(func() { v.noRoot = true }) }

// Refuse has signing be refused with a status and a text; 0 ends that.
func (v *Vault) Refuse(status int, text string) { v.set(func() { v.status, v.text = status, text }) }

// EndLogins has all tokens by AppRole be over.
func (v *Vault) EndLogins() { v.set(func() { clear(v.logins) }) }

// Strikes answers how many wrong secret IDs have been shown since the last right one.
func (v *Vault) Strikes() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.strikes
}

// LoginCount answers how often somebody has logged in.
func (v *Vault) LoginCount() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.Logins
}

func (v *Vault) set(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

func refuse(w http.ResponseWriter, status int, errors ...string) {
	if errors == nil {
		errors = []string{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": errors})
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

func (v *Vault) serve(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.sealed {
		refuse(w, http.StatusServiceUnavailable, "Vault is sealed")
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/pki/ca_chain":
		list := append([]*x509.Certificate{}, v.tree.Chain...)
		if !v.noRoot {
			list = append(list, v.tree.Root)
		}
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(issuertest.PEM(list...))
	case "GET /v1/pki/ca/pem":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(issuertest.PEM(v.tree.Chain[0]))
	case "POST /v1/auth/approle/login":
		v.login(w, r)
	case "POST /v1/pki/sign/mesh", "POST /v1/pki/sign-verbatim/mesh":
		v.sign(w, r, strings.Contains(r.URL.Path, "verbatim"))
	default:
		v.elsewhere(w, r)
	}
}

// elsewhere is a path that the fake's policy says nothing about.
func (v *Vault) elsewhere(w http.ResponseWriter, r *http.Request) {
	switch token := r.Header.Get("X-Vault-Token"); {
	case token == "":
		refuse(w, http.StatusForbidden, "permission denied")
	case token == v.Operator && strings.HasPrefix(r.URL.Path, "/v1/pki/sign/"):
		refuse(w, http.StatusBadRequest, fmt.Sprintf("unknown role: %s", path.Base(r.URL.Path)))
	case token == v.Operator:
		refuse(w, http.StatusNotFound, "no handler for route \""+strings.TrimPrefix(r.URL.Path, "/v1/")+"\". route entry not found.")
	case v.may(r):
		refuse(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	default:
		refuse(w, http.StatusForbidden, invalid)
	}
}

// invalid is said about a token that is none.
const invalid = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"

func (v *Vault) may(r *http.Request) bool {
	token := r.Header.Get("X-Vault-Token")
	return token != "" && (token == v.Token || token == v.Operator || time.Now().Before(v.logins[token]))
}

// maxStrikes is how many wrong secret IDs one after the other lock the role ID, by default.
const maxStrikes = 5

func (v *Vault) login(w http.ResponseWriter, r *http.Request) {
	var in struct {
		RoleID   string `json:"role_id"`
		SecretID string `json:"secret_id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "failed to parse JSON input")
		return
	}
	switch {
	case in.RoleID != v.RoleID:
		refuse(w, http.StatusBadRequest, "invalid role or secret ID")
		return
	case v.strikes == maxStrikes:
		refuse(w, http.StatusForbidden, "permission denied")
		return
	case in.SecretID != v.SecretID:
		v.strikes++
		refuse(w, http.StatusBadRequest, "invalid role or secret ID")
		return
	}
	v.strikes = 0
	token := "hvs." + random()
	v.logins[token] = time.Now().Add(v.lease)
	v.Logins++
	answer(w, map[string]any{"request_id": random(), "lease_id": "", "renewable": false, "data": nil,
		"auth": map[string]any{"client_token": token, "accessor": random(), "policies": []string{"default", "mesh"}, "lease_duration": int(v.lease.Seconds()), "renewable": true, "token_type": "service"}})
}

// sign signs as a role with require_cn=false, use_csr_sans=true does.
func (v *Vault) sign(w http.ResponseWriter, r *http.Request, verbatim bool) {
	if !v.may(r) {
		refuse(w, http.StatusForbidden, invalid)
		return
	}
	if v.status != 0 {
		refuse(w, v.status, v.text)
		return
	}
	var in struct {
		CSR         string   `json:"csr"`
		TTL         string   `json:"ttl"`
		ExtKeyUsage []string `json:"ext_key_usage"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(w, http.StatusBadRequest, "failed to parse JSON input")
		return
	}
	block, _ := pem.Decode([]byte(in.CSR))
	if block == nil {
		refuse(w, http.StatusBadRequest, "csr contains no data")
		return
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("certificate request could not be parsed: %v", err))
		return
	}
	for _, u := range csr.URIs {
		if !verbatim && !glob(v.allowed, u.String()) {
			refuse(w, http.StatusBadRequest, "URI Subject Alternative Names were provided via CSR which are not valid for this role")
			return
		}
	}
	ttl, err := time.ParseDuration(in.TTL)
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("error converting input %s for field \"ttl\"", in.TTL))
		return
	}
	c := &x509.Certificate{Subject: csr.Subject, URIs: csr.URIs, DNSNames: csr.DNSNames, NotBefore: time.Now().Add(-30 * time.Second), NotAfter: time.Now().Add(min(ttl, v.maxTTL)),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement | x509.KeyUsageKeyEncipherment} // no basic constraints, unless the role asks for them
	if !verbatim || len(in.ExtKeyUsage) == 2 { // sign-verbatim takes what is asked for, nothing by default
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	leaf := v.tree.Sign(c, csr.PublicKey)
	chain := []string{string(issuertest.PEM(v.tree.Chain[0]))}
	if !v.noRoot {
		chain = append(chain, string(issuertest.PEM(v.tree.Root)))
	}
	answer(w, map[string]any{"request_id": random(), "lease_id": "", "renewable": false, "lease_duration": 0, "data": map[string]any{
		"certificate": strings.TrimSpace(string(issuertest.PEM(leaf))), "issuing_ca": chain[0], "ca_chain": chain,
		"expiration": leaf.NotAfter.Unix(), "serial_number": leaf.SerialNumber.Text(16)}})
}

// glob compares as Vault does: one * at either end, or both.
func glob(pattern, s string) bool {
	body := strings.Trim(pattern, "*")
	switch front, back := strings.HasPrefix(pattern, "*"), strings.HasSuffix(pattern, "*"); {
	case front && back:
		return strings.Contains(s, body)
	case front:
		return strings.HasSuffix(s, body)
	case back:
		return strings.HasPrefix(s, body)
	}
	return pattern == s
}
