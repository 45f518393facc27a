package token_test

import (
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
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tulle-mesh/tulle/model/token"
)

const issuer = "https://issuer.example"

// signer is an issuer in a test.
type signer struct {
	key  crypto.Signer
	alg  jose.SignatureAlgorithm
	kid  string
	more map[jose.HeaderKey]any
}

func (s signer) sign(t testing.TB, claims string) string {
	t.Helper()
	o := &jose.SignerOptions{ExtraHeaders: s.more}
	key := any(s.key)
	if s.kid != "" {
		key = jose.JSONWebKey{Key: s.key, KeyID: s.kid}
	}
	made, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := made.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	text, err := sig.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func keysOf(t testing.TB, list ...jose.JSONWebKey) *token.Keys {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: list})
	if err != nil {
		t.Fatal(err)
	}
	k, err := token.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var all = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// believed asks everything of a token.
func believed(raw string, k *token.Keys, accepted []string, now time.Time) error {
	t, err := token.Parse([]byte(raw))
	if err != nil {
		return err
	}
	if _, err := t.Verify(k, accepted); err != nil {
		return err
	}
	return t.Check(issuer, []string{"reviews"}, time.Minute, now)
}

var now = time.Unix(1_800_000_000, 0)

func TestEveryAlgorithm(t *testing.T) {
	rsaKey := newRSA(t, 2048)
	signers := []signer{}
	for _, a := range []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512} {
		signers = append(signers, signer{key: rsaKey, alg: a})
	}
	for a, c := range map[jose.SignatureAlgorithm]elliptic.Curve{jose.ES256: elliptic.P256(), jose.ES384: elliptic.P384(), jose.ES512: elliptic.P521()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, signer{key: k, alg: a})
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signers = append(signers, signer{key: ed, alg: jose.EdDSA})
	for _, s := range signers {
		raw := s.sign(t, `{"iss":"`+issuer+`","aud":"reviews"}`)
		k := keysOf(t, jose.JSONWebKey{Key: s.key.Public()})
		if err := believed(raw, k, all, now); err != nil {
			t.Errorf("%s: %v", s.alg, err)
		}
		if err := believed(raw, k, []string{"none"}, now); !errors.Is(err, token.ErrAlgorithm) {
			t.Errorf("%s is taken though it is not accepted: %v", s.alg, err)
		}
		// A signature with one bit changed is none.
		i := strings.LastIndexByte(raw, '.') + 10
		c := byte('A')
		if raw[i] == c {
			c = 'B'
		}
		if err := believed(raw[:i]+string(c)+raw[i+1:], k, all, now); err == nil {
			t.Errorf("%s: a changed signature is taken", s.alg)
		}
	}
}

// TestKeysOfLater: what a key has verified is taken by other sets that have it, and by no others; no signature is looked at again.
func TestKeysOfLater(t *testing.T) {
	for _, kid := range []string{"", "k"} {
		_, one, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		_, two, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key := func(k ed25519.PrivateKey, id, algorithm string) jose.JSONWebKey {
			return jose.JSONWebKey{Key: k.Public(), KeyID: id, Algorithm: algorithm}
		}
		elder := keysOf(t, key(one, kid, ""))
		signed, err := token.Parse([]byte(signer{key: one, alg: jose.EdDSA, kid: kid}.sign(t, `{"iss":"`+issuer+`"}`)))
		if err != nil {
			t.Fatal(err)
		}
		by, err := signed.Verify(elder, all)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			later         *token.Keys
			still, within bool
		}{
			"the same":         {keysOf(t, key(one, kid, "")), true, true},
			"one more":         {keysOf(t, key(two, "x", ""), key(one, kid, "")), true, true},
			"another":          {keysOf(t, key(two, kid, "")), false, false},
			"renamed":          {keysOf(t, key(one, "x", "")), kid == "", false},
			"of its algorithm": {keysOf(t, key(one, kid, "EdDSA")), true, false},
			"of another":       {keysOf(t, key(one, kid, "ES256")), false, false},
		} {
			if got := c.later.Still(signed, by); got != c.still {
				t.Errorf("kid %q, %s: still %v", kid, name, got)
			}
			if _, err := signed.Verify(c.later, all); (err == nil) != c.still {
				t.Errorf("kid %q, %s: verifies %v, Still says %v", kid, name, err, c.still)
			}
			if got := elder.Within(c.later); got != c.within {
				t.Errorf("kid %q, %s: within %v", kid, name, got)
			}
		}
	}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// TestTricks: tokens that somebody has made up to be taken for what they are not.
func TestTricks(t *testing.T) {
	key, other := newRSA(t, 2048), newRSA(t, 2048)
	good := signer{key: key, alg: jose.RS256, kid: "a"}
	k := keysOf(t, jose.JSONWebKey{Key: key.Public(), KeyID: "a", Use: "sig", Algorithm: "RS256"})
	claims := `{"iss":"` + issuer + `","sub":"alice","aud":["x","reviews"],"exp":1800000100}`
	raw := good.sign(t, claims)
	if err := believed(raw, k, all, now); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(raw, ".")
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	confused := b64(`{"alg":"HS256","kid":"a"}`) + "." + b64(claims)
	mac := hmac.New(sha256.New, der)
	mac.Write([]byte(confused))
	embedded, err := json.Marshal(jose.JSONWebKey{Key: other.Public()})
	if err != nil {
		t.Fatal(err)
	}
	with := func(claims string) string { return good.sign(t, claims) }
	headed := func(name string, v any) string {
		return signer{key: other, alg: jose.RS256, kid: "a", more: map[jose.HeaderKey]any{jose.HeaderKey(name): v}}.sign(t, claims)
	}
	// genuine is signed by the issuer, with one more field in the header.
	genuine := func(name string, v any) string {
		return signer{key: key, alg: jose.RS256, kid: "a", more: map[jose.HeaderKey]any{jose.HeaderKey(name): v}}.sign(t, claims)
	}
	deep := strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)
	for name, c := range map[string]struct {
		raw  string
		want error
	}{
		"empty":                       {"", token.ErrMalformed},
		"dots":                        {"..", token.ErrMalformed},
		"two parts":                   {parts[0] + "." + parts[1], token.ErrMalformed},
		"four parts":                  {raw + ".x", token.ErrMalformed},
		"five parts, encrypted":       {raw + ".x.y", token.ErrMalformed},
		"no signature":                {parts[0] + "." + parts[1] + ".", token.ErrMalformed},
		"alg none":                    {b64(`{"alg":"none"}`) + "." + parts[1] + ".", token.ErrMalformed},
		"alg none, a signature":       {b64(`{"alg":"none"}`) + "." + parts[1] + "." + parts[2], token.ErrAlgorithm},
		"alg None":                    {b64(`{"alg":"None"}`) + "." + parts[1] + "." + parts[2], token.ErrAlgorithm},
		"alg nOnE":                    {b64(`{"alg":"nOnE"}`) + "." + parts[1] + "." + parts[2], token.ErrAlgorithm},
		"alg missing":                 {b64(`{"typ":"JWT"}`) + "." + parts[1] + "." + parts[2], token.ErrMalformed},
		"alg a number":                {b64(`{"alg":256}`) + "." + parts[1] + "." + parts[2], token.ErrMalformed},
		"alg a list":                  {b64(`{"alg":["RS256"]}`) + "." + parts[1] + "." + parts[2], token.ErrMalformed},
		"alg twice":                   {b64(`{"alg":"none","alg":"RS256"}`) + "." + parts[1] + "." + parts[2], token.ErrMalformed},
		"alg in another case":         {b64(`{"alg":"rs256"}`) + "." + parts[1] + "." + parts[2], token.ErrAlgorithm},
		"public key as shared secret": {confused + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), token.ErrAlgorithm},
		"other algorithm of the key":  {signer{key: key, alg: jose.PS256, kid: "a"}.sign(t, claims), token.ErrNoKey},
		"kid of nobody":               {signer{key: key, alg: jose.RS256, kid: "../../dev/null"}.sign(t, claims), token.ErrNoKey},
		"kid with SQL":                {signer{key: other, alg: jose.RS256, kid: "a' OR '1'='1"}.sign(t, claims), token.ErrNoKey},
		"kid a number":                {b64(`{"alg":"RS256","kid":1}`) + "." + parts[1] + "." + parts[2], token.ErrMalformed},
		"other key, right kid":        {signer{key: other, alg: jose.RS256, kid: "a"}.sign(t, claims), token.ErrSignature},
		"other key, no kid":           {signer{key: other, alg: jose.RS256}.sign(t, claims), token.ErrNoKey},
		"embedded jwk":                {headed("jwk", json.RawMessage(embedded)), token.ErrSignature},
		"jku":                         {headed("jku", "https://evil.example/keys"), token.ErrSignature},
		"x5u":                         {headed("x5u", "https://evil.example/cert"), token.ErrSignature},
		"critical":                    {genuine("crit", []string{"exp"}), token.ErrMalformed},
		"b64 false":                   {genuine("b64", false), token.ErrMalformed},
		"nested token":                {genuine("cty", "JWT"), token.ErrMalformed},
		"logout token":                {genuine("typ", "logout+jwt"), token.ErrMalformed},
		"claims of another":           {parts[0] + "." + b64(strings.Replace(claims, "alice", "root", 1)) + "." + parts[2], token.ErrSignature},
		"sub twice":                   {with(`{"iss":"` + issuer + `","sub":"a","sub":"root","aud":"reviews"}`), token.ErrMalformed},
		"sub twice, escaped":          {with(`{"iss":"` + issuer + `","sub":"a","\u0073ub":"root","aud":"reviews"}`), token.ErrMalformed},
		"twice further in":            {with(`{"iss":"` + issuer + `","aud":"reviews","a":{"b":1,"b":2}}`), token.ErrMalformed},
		"more behind the object":      {with(claims + `{}`), token.ErrMalformed},
		"a list":                      {with(`[` + claims + `]`), token.ErrMalformed},
		"a text":                      {with(`"` + issuer + `"`), token.ErrMalformed},
		"null":                        {with(`null`), token.ErrMalformed},
		"not JSON":                    {with(`{iss:1}`), token.ErrMalformed},
		"broken UTF-8":                {with("{\"iss\":\"" + issuer + "\",\"aud\":\"reviews\",\"sub\":\"\xff\"}"), token.ErrMalformed},
		"deep":                        {with(`{"iss":"` + issuer + `","aud":"reviews","x":` + deep + `}`), token.ErrMalformed},
		"huge":                        {with(`{"iss":"` + issuer + `","aud":"reviews","x":"` + strings.Repeat("a", 20<<10) + `"}`), token.ErrMalformed},
		"iss of another":              {with(`{"iss":"https://evil.example","aud":"reviews"}`), token.ErrIssuer},
		"iss with a slash":            {with(`{"iss":"` + issuer + `/","aud":"reviews"}`), token.ErrIssuer},
		"iss in capitals":             {with(`{"iss":"HTTPS://issuer.example","aud":"reviews"}`), token.ErrIssuer},
		"iss missing":                 {with(`{"aud":"reviews"}`), token.ErrIssuer},
		"iss empty":                   {with(`{"iss":"","aud":"reviews"}`), token.ErrIssuer},
		"iss a list":                  {with(`{"iss":["` + issuer + `"],"aud":"reviews"}`), token.ErrMalformed},
		"iss null":                    {with(`{"iss":null,"aud":"reviews"}`), token.ErrMalformed},
		"sub an object":               {with(`{"iss":"` + issuer + `","aud":"reviews","sub":{}}`), token.ErrMalformed},
		"aud of another":              {with(`{"iss":"` + issuer + `","aud":"details"}`), token.ErrAudience},
		"aud missing":                 {with(`{"iss":"` + issuer + `"}`), token.ErrAudience},
		"aud empty list":              {with(`{"iss":"` + issuer + `","aud":[]}`), token.ErrAudience},
		"aud a beginning":             {with(`{"iss":"` + issuer + `","aud":"reviews-v2"}`), token.ErrAudience},
		"aud with a number":           {with(`{"iss":"` + issuer + `","aud":["reviews",1]}`), token.ErrMalformed},
		"aud null":                    {with(`{"iss":"` + issuer + `","aud":null}`), token.ErrMalformed},
		"exp past":                    {with(`{"iss":"` + issuer + `","aud":"reviews","exp":1799999940}`), token.ErrExpired},
		"exp a text":                  {with(`{"iss":"` + issuer + `","aud":"reviews","exp":"1900000000"}`), token.ErrMalformed},
		"exp null":                    {with(`{"iss":"` + issuer + `","aud":"reviews","exp":null}`), token.ErrMalformed},
		"exp beyond all":              {with(`{"iss":"` + issuer + `","aud":"reviews","exp":1e300}`), token.ErrMalformed},
		"exp no number at all":        {with(`{"iss":"` + issuer + `","aud":"reviews","exp":1e999}`), token.ErrMalformed},
		"exp negative":                {with(`{"iss":"` + issuer + `","aud":"reviews","exp":-1}`), token.ErrExpired},
		"nbf to come":                 {with(`{"iss":"` + issuer + `","aud":"reviews","nbf":1800000061}`), token.ErrNotYet},
		"nbf to come by a bit":        {with(`{"iss":"` + issuer + `","aud":"reviews","nbf":1800000060.1}`), token.ErrNotYet},
		"iat to come":                 {with(`{"iss":"` + issuer + `","aud":"reviews","iat":1800000061}`), token.ErrNotYet},
		"padding":                     {parts[0] + "." + parts[1] + "." + parts[2] + "==", token.ErrMalformed},
		"padding of the claims":       {parts[0] + "." + parts[1] + "=." + parts[2], token.ErrMalformed},
		"end of a line":               {parts[0] + "\n." + parts[1] + "." + parts[2], token.ErrMalformed},
		"end of a line at the end":    {raw + "\r\n", token.ErrMalformed},
		"space before":                {" " + raw, token.ErrMalformed},
		"alphabet of base64":          {parts[0] + "." + parts[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(parts[2][:100]) + "+/" + parts[2][102:], token.ErrMalformed},
	} {
		if err := believed(c.raw, k, all, now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, expected %v", name, err, c.want)
		}
	}
	for name, c := range map[string]string{
		"exp forgiven":         with(`{"iss":"` + issuer + `","aud":"reviews","exp":1799999941}`),
		"nbf forgiven":         with(`{"iss":"` + issuer + `","aud":"reviews","nbf":1800000060}`),
		"exp with a fraction":  with(`{"iss":"` + issuer + `","aud":"reviews","exp":1800000001.5}`),
		"no exp":               with(`{"iss":"` + issuer + `","aud":"reviews"}`),
		"kid missing":          signer{key: key, alg: jose.RS256}.sign(t, claims),
		"typ at+jwt":           genuine("typ", "at+jwt"),
		"typ with application": genuine("typ", "application/JWT"),
		"jku of the issuer":    genuine("jku", "https://evil.example/keys"),
	} {
		if err := believed(c, k, all, now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseKeys(t *testing.T) {
	weak, good := newRSA(t, 1024), newRSA(t, 2048)
	text := func(list ...jose.JSONWebKey) []byte {
		b, err := json.Marshal(jose.JSONWebKeySet{Keys: list})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, list := range map[string][]jose.JSONWebKey{
		"weak":        {{Key: weak.Public()}},
		"shared":      {{Key: []byte("0123456789abcdef")}},
		"private":     {{Key: good}},
		"to encrypt":  {{Key: good.Public(), Use: "enc"}},
		"none at all": {},
	} {
		if _, err := token.ParseKeys(text(list...)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	mixed := `{"keys":[{"kty":"XX"},{"kty":"RSA","n":"%%"},5,` + strings.TrimPrefix(string(text(jose.JSONWebKey{Key: good.Public(), KeyID: "g"})), `{"keys":[`)
	k, err := token.ParseKeys([]byte(mixed))
	if err != nil || k.Len() != 1 {
		t.Errorf("keys that are not understood hide the others: %v", err)
	}
	if _, err := token.ParseKeys(make([]byte, token.MaxKeySet+1)); err == nil {
		t.Error("a set that is too large is read")
	}
}

func TestValues(t *testing.T) {
	claims := `{"iss":"i","sub":"s","n":12.50,"big":12345678901234567890,"yes":true,"no":null,"list":["a",1,{"x":1},["y"]],"empty":[],` +
		`"realm":{"roles":["r1","r2"],"deep":{"er":"v"}},"a.b":"plain","a":{"b":"nested"},"scope":"read  write","https://x/y":"z"}`
	tok, err := token.Parse([]byte(b64(`{"alg":"RS256"}`) + "." + b64(claims) + "." + b64("x")))
	if err != nil {
		t.Fatal(err)
	}
	if tok.Principal() != "i/s" {
		t.Errorf("principal %q", tok.Principal())
	}
	for name, want := range map[string]string{"n": "12.50", "big": "12345678901234567890", "yes": "true", "no": "", "list": "a,1", "empty": "",
		"realm.roles": "r1,r2", "realm.deep.er": "v", "a.b": "plain", "scope": "read,write", "https://x/y": "z", "realm": "", "unknown": "", "sub": "s"} {
		var got []string
		for i := 0; ; i++ {
			v, ok := tok.Value(name, i)
			if !ok {
				break
			}
			got = append(got, v)
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s: %q, expected %q", name, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { tok.Value("realm.roles", 1) }); n != 0 {
		t.Errorf("asking for a claim allocates %v times", n)
	}
}

// FuzzToken: what is believed here go-jose believes as well, and it reads the same in it.
func FuzzToken(f *testing.F) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	s := signer{key: key, alg: jose.EdDSA}
	k := keysOf(f, jose.JSONWebKey{Key: key.Public()})
	for _, claims := range []string{`{"iss":"` + issuer + `","aud":"reviews","exp":1800000100,"sub":"s"}`, `{"iss":"` + issuer + `","aud":["reviews"],"nbf":1.5}`,
		`{"iss":"x","iss":"y"}`, `{"aud":{}}`, `[]`, `{"iss":"` + issuer + `","aud":"reviews","exp":1799999940,"iat":1800000060.5}`} {
		f.Add(claims, "", "")
		f.Add(claims, s.sign(f, claims), "")
	}
	f.Add("", "a.b.c", "")
	f.Add(`{}`, "", `{"alg":"EdDSA","crit":["b64"],"b64":false}`)
	f.Fuzz(func(t *testing.T, claims, raw, header string) {
		if raw == "" {
			if raw = s.sign(t, claims); header != "" {
				signed := b64(header) + "." + b64(claims)
				raw = signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(signed)))
			}
		}
		ours, err := token.Parse([]byte(raw))
		if err != nil {
			return
		}
		if _, err := ours.Verify(k, all); err != nil {
			return
		}
		theirs, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.EdDSA})
		if err != nil {
			t.Fatalf("go-jose does not read it: %v", err)
		}
		var c jwt.Claims
		if err := theirs.Claims(key.Public(), &c); err != nil {
			t.Fatalf("go-jose does not believe it: %v", err)
		}
		if c.Issuer != ours.Issuer || c.Subject != ours.Subject {
			t.Fatalf("%q %q, go-jose reads %q %q", ours.Issuer, ours.Subject, c.Issuer, c.Subject)
		}
		if ours.Check(issuer, []string{"reviews"}, time.Minute, now) == nil {
			if err := c.ValidateWithLeeway(jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{"reviews"}, Time: now}, time.Minute); err != nil {
				t.Fatalf("go-jose refuses it: %v", err)
			}
		}
	})
}
