//go:build e2e

package security

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// issuer signs tokens, those that are believed and those that must not be.
type issuer struct {
	m    *mesh
	rsa  *rsa.PrivateKey
	ed   ed25519.PrivateKey
	ec   *ecdsa.PrivateKey
	evil *rsa.PrivateKey // an attacker's
	now  int64
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwks is the public keys.
func (i *issuer) jwks() string {
	point, err := i.ec.PublicKey.Bytes()
	if err != nil {
		i.m.t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"keys": []any{
		map[string]string{"kty": "RSA", "kid": "r", "n": b64(i.rsa.N.Bytes()), "e": "AQAB"},
		map[string]string{"kty": "OKP", "kid": "e", "crv": "Ed25519", "x": b64(i.ed.Public().(ed25519.PublicKey))},
		map[string]string{"kty": "EC", "kid": "p", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
	}})
	if err != nil {
		i.m.t.Fatal(err)
	}
	return string(text)
}

// newIssuer makes one and has the mesh believe it below /token.
func newIssuer(m *mesh) *issuer {
	i := &issuer{m: m, now: time.Now().Unix()}
	var errs [4]error
	i.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	i.evil, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	i.ec, errs[2] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, i.ed, errs[3] = ed25519.GenerateKey(rand.Reader)
	for _, err := range errs {
		if err != nil {
			m.t.Fatal(err)
		}
	}
	apply := exec.Command(m.tulle, "apply", "-f", "-", "--wait", "10s", "--data-dir", m.data)
	apply.Stdin = strings.NewReader(`apiVersion: tulle.dev/v1alpha1
kind: AuthenticationPolicy
metadata: {name: tokens}
spec:
  targetRefs: [{kind: Service, name: target}]
  jwt:
  - issuer: https://issuer.example
    audiences: [target]
    algorithms: [RS256, ES256, EdDSA]
    jwks: '` + i.jwks() + `'
    from: [{header: Authorization, prefix: "Bearer "}, {query: access_token}, {cookie: session}]
    claimHeaders: [{claim: sub, header: x-user}]
    requiredPaths: [/token, "/token/*"]
`)
	if out, err := apply.CombinedOutput(); err != nil {
		m.t.Fatalf("%v: %s", err, out)
	}
	return i
}

// claims are those of a good token, with changes: "name": nil takes one out.
func (i *issuer) claims(edit map[string]any) string {
	c := map[string]any{"iss": "https://issuer.example", "sub": "alice", "aud": "target", "exp": i.now + 3600, "iat": i.now - 10}
	for k, v := range edit {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		i.m.t.Fatal(err)
	}
	return string(text)
}

// signed is a token of this header and these claims, whatever they are, signed with the RSA key.
func (i *issuer) signed(head, claims string) string { return i.by(i.rsa, head, claims) }

func (i *issuer) by(key *rsa.PrivateKey, head, claims string) string {
	text := b64([]byte(head)) + "." + b64([]byte(claims))
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		i.m.t.Fatal(err)
	}
	return text + "." + b64(sig)
}

// shared is a token whose signature is an HMAC.
func shared(head, claims string, key []byte) string {
	text := b64([]byte(head)) + "." + b64([]byte(claims))
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return text + "." + b64(h.Sum(nil))
}

const rs256 = `{"alg":"RS256","kid":"r","typ":"JWT"}`

// with is a genuine token with changed claims.
func (i *issuer) with(edit map[string]any) string { return i.signed(rs256, i.claims(edit)) }

// forged is what is not signed by the issuer, or not in a way that is taken.
func (i *issuer) forged() map[string]string {
	good, claims := i.with(nil), i.claims(nil)
	parts := strings.Split(good, ".")
	der, err := x509.MarshalPKIXPublicKey(&i.rsa.PublicKey)
	if err != nil {
		i.m.t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	evil := fmt.Sprintf(`{"kty":"RSA","kid":"r","n":%q,"e":"AQAB"}`, b64(i.evil.N.Bytes()))
	out := map[string]string{
		"HS256 with the public key": shared(`{"alg":"HS256","kid":"r"}`, claims, public), "HS256 with the public key without its end of line": shared(`{"alg":"HS256","kid":"r"}`, claims, bytes.TrimSpace(public)),
		"HS256 with the key in DER": shared(`{"alg":"HS256","kid":"r"}`, claims, der), "HS256 with the modulus": shared(`{"alg":"HS256","kid":"r"}`, claims, i.rsa.N.Bytes()), "HS256 with the key set": shared(`{"alg":"HS256","kid":"r"}`, claims, []byte(i.jwks())),
		"HS256 without a key": shared(`{"alg":"HS256"}`, claims, nil), "HS256, kid is /dev/null": shared(`{"alg":"HS256","kid":"../../../../../../dev/null"}`, claims, nil), "HS256, kid is a query": shared(`{"alg":"HS256","kid":"x' UNION SELECT 'k"}`, claims, []byte("k")),
		"kid is a path, genuine": i.signed(`{"alg":"RS256","kid":"./r"}`, claims), "kid is a path, an attacker's": i.by(i.evil, `{"alg":"RS256","kid":"/proc/sys/kernel/randomize_va_space"}`, claims), "kid is a number": i.signed(`{"alg":"RS256","kid":1}`, claims),
		"kid is a list": i.signed(`{"alg":"RS256","kid":["r"]}`, claims), "kid of another kind of key": i.signed(`{"alg":"RS256","kid":"e"}`, claims), "kid unknown": i.signed(`{"alg":"RS256","kid":"q"}`, claims),
		"an attacker's, kid known": i.by(i.evil, rs256, claims), "an attacker's, no kid": i.by(i.evil, `{"alg":"RS256"}`, claims), "jwk in the header": i.by(i.evil, `{"alg":"RS256","kid":"r","jwk":`+evil+`}`, claims),
		"jku in the header": i.by(i.evil, `{"alg":"RS256","kid":"r","jku":"http://127.0.0.1:9/keys"}`, claims), "x5u in the header": i.by(i.evil, `{"alg":"RS256","kid":"r","x5u":"https://evil.example/x"}`, claims),
		"x5c in the header": i.by(i.evil, `{"alg":"RS256","kid":"r","x5c":["`+base64.StdEncoding.EncodeToString(der)+`"]}`, claims), "another iss in the header": i.by(i.evil, `{"alg":"RS256","iss":"https://issuer.example"}`, claims),
		"claims exchanged": parts[0] + "." + b64([]byte(i.claims(map[string]any{"sub": "root"}))) + "." + parts[2], "header exchanged": b64([]byte(`{"alg":"RS256","kid":"r"}`)) + "." + parts[1] + "." + parts[2],
		"signature of another token": parts[0] + "." + parts[1] + "." + strings.Split(i.with(map[string]any{"sub": "root"}), ".")[2], "signature cut": good[:len(good)-8], "signature empty": parts[0] + "." + parts[1] + ".", "signature of noughts": parts[0] + "." + parts[1] + "." + b64(make([]byte, 256)),
		"signature padded": good + "==", "ES256 of noughts": b64([]byte(`{"alg":"ES256","kid":"p"}`)) + "." + parts[1] + "." + b64(make([]byte, 64)), "ES256 with an RSA signature": b64([]byte(`{"alg":"ES256","kid":"r"}`)) + "." + parts[1] + "." + parts[2],
		"EdDSA with the RSA key": b64([]byte(`{"alg":"EdDSA","kid":"r"}`)) + "." + parts[1] + "." + parts[2], "EdDSA of noughts": b64([]byte(`{"alg":"EdDSA","kid":"e"}`)) + "." + parts[1] + "." + b64(make([]byte, 64)),
		"PS256, not taken": b64([]byte(`{"alg":"PS256","kid":"r"}`)) + "." + parts[1] + "." + parts[2], "RS384 with a signature of RS256": b64([]byte(`{"alg":"RS384","kid":"r"}`)) + "." + parts[1] + "." + parts[2],
	}
	for _, alg := range []string{"none", "None", "nOnE", "NONE", "", "null", "RS256 ", "rs256"} {
		head := b64([]byte(fmt.Sprintf(`{"alg":%q,"kid":"r"}`, alg)))
		out[fmt.Sprintf("alg %q, no signature", alg)] = head + "." + parts[1] + "."
		out[fmt.Sprintf("alg %q, a genuine signature", alg)] = i.signed(fmt.Sprintf(`{"alg":%q,"kid":"r"}`, alg), claims)
	}
	return out
}

// misshaped is what the issuer has signed and that can be read in more than one way, or not at all.
func (i *issuer) misshaped() map[string]string {
	good, claims := i.with(nil), i.claims(nil)
	parts := strings.Split(good, ".")
	rest := strings.TrimPrefix(claims, "{")
	return map[string]string{
		"no alg": i.signed(`{"kid":"r"}`, claims), "alg twice": i.signed(`{"alg":"none","alg":"RS256","kid":"r"}`, claims), "alg is a list": i.signed(`{"alg":["RS256"],"kid":"r"}`, claims),
		"sub twice": i.signed(rs256, `{"sub":"root",`+rest), "iss twice": i.signed(rs256, `{"iss":"https://evil.example",`+rest), "sub twice, escaped": i.signed(rs256, `{"\u0073ub":"root",`+rest), "a name twice within": i.signed(rs256, `{"a":{"b":1,"b":2},`+rest),
		"a token within": i.signed(`{"alg":"RS256","kid":"r","cty":"JWT"}`, good), "a token as its claims": i.signed(rs256, `"`+good+`"`), "typ of something else": i.signed(`{"alg":"RS256","kid":"r","typ":"logout+jwt"}`, claims), "typ is a number": i.signed(`{"alg":"RS256","kid":"r","typ":1}`, claims),
		"crit": i.signed(`{"alg":"RS256","kid":"r","crit":["exp"],"exp":1}`, claims), "b64 false": i.signed(`{"alg":"RS256","kid":"r","b64":false,"crit":["b64"]}`, claims), "compressed": i.signed(`{"alg":"RS256","kid":"r","zip":"DEF"}`, claims), "encrypted": i.signed(`{"alg":"RS256","kid":"r","enc":"A128GCM"}`, claims),
		"five parts": good + ".a.b", "four parts": good + ".a", "two parts": parts[0] + "." + parts[1], "dots": "..", "three dots": "...", "empty claims": i.signed(rs256, ""), "claims are a list": i.signed(rs256, "["+claims+"]"), "claims are null": i.signed(rs256, "null"), "claims twice": i.signed(rs256, claims+claims),
		"something behind": i.signed(rs256, claims+"x"), "something before": i.signed(rs256, "\ufeff"+claims), "no UTF-8": i.signed(rs256, `{"x":"`+"\xff"+`",`+rest), "a comment": i.signed(rs256, `/**/`+claims), "deep": i.signed(rs256, `{"x":`+strings.Repeat("[", 2000)+strings.Repeat("]", 2000)+`,`+rest),
		"standard base64": strings.NewReplacer("-", "+", "_", "/").Replace(good) + "=", "JSON serialization": `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, "a blank within": parts[0] + ". " + parts[1] + "." + parts[2],
		"17 KB": i.with(map[string]any{"x": strings.Repeat("x", 17<<10)}), "opaque": "2YotnFZFEjr1zCsicMWpAA", "bits left over": good[:len(good)-1] + string(next(good[len(good)-1])),
	}
}

// next answers a base64url character with another lowest bit, which a signature of 256 bytes does not use.
func next(c byte) byte {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return digits[strings.IndexByte(digits, c)^1]
}

// unfit is what the issuer has signed, for somebody else or another time.
func (i *issuer) unfit() map[string]string {
	out := map[string]string{}
	for name, edit := range map[string]map[string]any{
		"ended 90 s ago": {"exp": i.now - 90}, "ended long ago": {"exp": 1}, "ends at no time": {"exp": nil}, "exp is a text": {"exp": fmt.Sprint(i.now + 3600)}, "exp is a list": {"exp": []int64{i.now + 3600}}, "exp is true": {"exp": true}, "exp is below nought": {"exp": -1},
		"exp is beyond all": {"exp": json.RawMessage("1e400")}, "exp is beyond 2^53": {"exp": json.RawMessage("99999999999999999999")}, "exp is null": {"exp": json.RawMessage("null")}, "begins in 10 minutes": {"nbf": i.now + 600}, "nbf is a text": {"nbf": "0"}, "made in 10 minutes": {"iat": i.now + 600},
		"another issuer": {"iss": "https://evil.example"}, "issuer with a slash": {"iss": "https://issuer.example/"}, "issuer in capitals": {"iss": "HTTPS://issuer.example"}, "issuer is a list": {"iss": []string{"https://issuer.example"}}, "no issuer": {"iss": nil}, "empty issuer": {"iss": ""},
		"another audience": {"aud": "other"}, "no audience": {"aud": nil}, "audience with more behind": {"aud": "target.evil.example"}, "audience in capitals": {"aud": "Target"}, "audiences in one text": {"aud": "target other"}, "no audience in the list": {"aud": []string{}},
		"audience is an object": {"aud": map[string]string{"target": "target"}}, "a number among audiences": {"aud": []any{"target", 1}}, "audiences in a list in a list": {"aud": []any{[]string{"target"}}}, "audience is null": {"aud": json.RawMessage("null")}, "sub is a number": {"sub": 1}, "sub is a list": {"sub": []string{"alice"}},
	} {
		out[name] = i.with(edit)
	}
	return out
}

// tokens are requests with tokens that must not be believed, and some that must: who refuses everything is not safe, he is of no use.
func tokens(m *mesh) (rows []row) {
	i := newIssuer(m)
	ask := func(name, target, fields string, want ...string) {
		rows = append(rows, row{name: "token " + name, want: want, hidden: want[0] != "200", try: func(m *mesh) string {
			return raw(m, "GET "+target+" HTTP/1.1\r\nHost: target\r\n"+fields+"\r\n")
		}})
	}
	bearer := func(t string) string { return "Authorization: Bearer " + t + "\r\n" }
	for _, list := range []map[string]string{i.forged(), i.misshaped(), i.unfit()} {
		for name, t := range list {
			ask(name, "/token/x", bearer(t), "401", "431")
		}
	}
	good, other := i.with(nil), i.with(map[string]any{"sub": "bob"})
	for name, fields := range map[string]string{
		"none": "", "another scheme": "Authorization: Basic " + good + "\r\n", "no scheme": "Authorization: " + good + "\r\n", "in a field where none is looked for": "X-Token: " + good + "\r\n", "in a proxy's field": "Proxy-Authorization: Bearer " + good + "\r\n",
		"an empty one": "Authorization: Bearer \r\n", "two that differ": bearer(good) + bearer(other), "two in one field": "Authorization: Bearer " + good + ", Bearer " + other + "\r\n", "two in one field by blanks": bearer(good + " " + other),
		"another one in a cookie": bearer(good) + "Cookie: session=" + other + "\r\n", "two cookies": "Cookie: session=" + good + "; session=" + other + "\r\n", "a forged one behind a good one": bearer(good) + bearer(good+"x"), "a forged one before a good one": bearer(good+"x") + bearer(good),
		"a good one that Connection names": "Connection: authorization\r\nAuthorization: Bearer x\r\n", "another place in capitals": "Cookie: SESSION=" + good + "\r\n", "in a trailer's place": "Trailer: Authorization\r\n",
	} {
		ask(name, "/token/x", fields, "401", "400")
	}
	ask("another one in the query", "/token/x?access_token="+other, bearer(good), "401")
	ask("two in the query", "/token/x?access_token="+good+"&access_token="+other, "", "401")
	ask("in the query behind a semicolon", "/token/x?a=b;access_token="+good, "", "401")
	ask("in the path", "/token/x;access_token="+good, "", "400")
	for _, path := range []string{"/token", "/token/", "//token/x", "/%74oken/x", "/x/../token/x", "/./token/x", "/token//x"} {
		ask("none, "+path, path, "", "401")
	}
	ask("none, a slash escaped", "/token%2fx", "", "400")
	ask("a forged one where none is needed", "/free", bearer(good+"x"), "401")
	for name, text := range map[string]string{
		"RS256": good, "ended 30 s ago": i.with(map[string]any{"exp": i.now - 20}), "begins in 30 s": i.with(map[string]any{"nbf": i.now + 40}), "exp with a fraction": i.with(map[string]any{"exp": float64(i.now) + 3600.5}),
		"one of several audiences": i.with(map[string]any{"aud": []string{"other", "target"}}), "no kid": i.signed(`{"alg":"RS256"}`, i.claims(nil)), "typ in another case": i.signed(`{"alg":"RS256","kid":"r","typ":"application/AT+JWT"}`, i.claims(nil)),
		"EdDSA": i.edDSA(), "jku that nobody follows": i.signed(`{"alg":"RS256","kid":"r","jku":"http://127.0.0.1:9/keys"}`, i.claims(nil)),
	} {
		ask("good: "+name, "/token/x", bearer(text), "200")
	}
	ask("good: in a cookie", "/token/x", "Cookie: a=b; session="+good+"\r\n", "200")
	ask("good: in the query", "/token/x?a=b&access%5Ftoken="+good, "", "200")
	ask("good: twice the same", "/token/x", bearer(good)+"Cookie: session="+good+"\r\n", "200")
	return append(rows, i.told(good)...)
}

func (i *issuer) edDSA() string {
	text := b64([]byte(`{"alg":"EdDSA","kid":"e"}`)) + "." + b64([]byte(i.claims(nil)))
	return text + "." + b64(ed25519.Sign(i.ed, []byte(text)))
}

// told is what the program gets of tokens: what is verified, and nothing that clients say in its place.
func (i *issuer) told(good string) (rows []row) {
	sees := func(name, target, fields string, has, hasNot string) {
		rows = append(rows, row{name: "token " + name, want: []string{"200"}, try: func(m *mesh) string {
			status, body := talk(m, "GET "+target+" HTTP/1.1\r\nHost: target\r\n"+fields+"\r\n")
			if body = strings.ToLower(body); !strings.Contains(body, has) || strings.Contains(body, hasNot) {
				return "the program got " + body
			}
			return status
		}})
	}
	sees("tells who asks", "/token/x", "Authorization: Bearer "+good+"\r\nX-User: root\r\n", `x-user: ["alice"]`, "root")
	sees("tells nobody", "/free", "X-User: root\r\nx_user: root\r\nx.user: root\r\n", "get /free", "root")
	sees("does not reach the program", "/token/x?access_token="+good+"&b=c", "", "/token/x?b=c", strings.ToLower(good))
	sees("does not reach the program in a field", "/token/x", "Authorization: Bearer "+good+"\r\n", `x-user: ["alice"]`, "authorization")
	sees("with ends of lines in a claim", "/token/x", "Authorization: Bearer "+i.with(map[string]any{"sub": "eve\r\nx-admin: yes"})+"\r\n", "get /token/x", "x-admin")
	return rows
}
