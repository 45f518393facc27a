// Package token reads JSON Web Tokens (RFC 7519) as they come from anybody: what is in them (Parse), who signed them (Verify), and
// whether they are for us and in time (Check). All three have to be asked before anything of a token is believed. It takes the
// compact form of a signature with a public key and nothing else: no "none", no shared secrets, no encryption, no keys or
// addresses that the token itself brings (jwk, jku, x5c, x5u), no critical extensions, no name twice. It fetches nothing and
// knows no clock. Pure; a Token and Keys are immutable once made. Start reading at Parse.
package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds.
const (
	MaxSize  = 16 << 10 // bytes of a token
	maxDepth = 16       // of objects and lists within another
	maxSub   = 4 << 10  // bytes of an issuer or a subject
)

// Why a token is not taken.
var (
	ErrMalformed = errors.New("is not a JSON Web Token as it is read here")
	ErrAlgorithm = errors.New("is signed in a way that is not accepted")
	ErrNoKey     = errors.New("is signed with a key that the issuer is not known to have")
	ErrSignature = errors.New("has a signature that is not its issuer's")
	ErrIssuer    = errors.New("is of another issuer")
	ErrAudience  = errors.New("is for another audience")
	ErrExpired   = errors.New("has expired")
	ErrNotYet    = errors.New("is not valid yet")
	ErrEndless   = errors.New("never ends: it has no exp, and its issuer's policy does not say allowEndless")
)

// Token is what a token says. Nothing of it is to be believed before Verify and Check have answered nil.
type Token struct {
	Algorithm, KeyID string // of the header
	Issuer, Subject  string
	Audiences        []string
	// Expires, NotBefore and IssuedAt are Unix seconds; Expires is rounded down and the others up.
	Expires, NotBefore, IssuedAt int64
	hasExpires                   bool

	raw    string
	claims map[string][]string
}

// Principal is "issuer/subject", or "" where one of them is missing.
func (t *Token) Principal() string {
	if t.Issuer == "" || t.Subject == "" {
		return ""
	}
	return t.Issuer + "/" + t.Subject
}

// Value answers the i-th value of a claim, false beyond the last. "a.b" is b of the object a, unless a claim is called so. Numbers
// are written as in the token; "scope" and "scp" (RFC 8693 section 4.2) are lists even where they are one text.
func (t *Token) Value(claim string, i int) (string, bool) {
	v := t.claims[claim]
	if i < 0 || i >= len(v) {
		return "", false
	}
	return v[i], true
}

// Ends answers when the token ends, Unix seconds; false: never.
func (t *Token) Ends() (int64, bool) { return t.Expires, t.hasExpires }

// Parse reads a token. Errors are ErrMalformed and ErrAlgorithm.
func Parse(raw []byte) (*Token, error) {
	if len(raw) > MaxSize {
		return nil, ErrMalformed
	}
	parts := bytes.Split(raw, []byte{'.'})
	if len(parts) != 3 || len(parts[2]) == 0 {
		return nil, ErrMalformed
	}
	var texts [3][]byte
	for i, p := range parts {
		var ok bool
		if texts[i], ok = decode(p); !ok {
			return nil, ErrMalformed
		}
	}
	t := &Token{raw: string(raw)}
	head, err := object(texts[0])
	if err != nil {
		return nil, err
	}
	if err := t.header(head); err != nil {
		return nil, err
	}
	claims, err := object(texts[1])
	if err != nil {
		return nil, err
	}
	if err := t.registered(claims); err != nil {
		return nil, err
	}
	t.claims = map[string][]string{}
	t.flatten("", claims)
	return t, nil
}

// decode reads base64url without padding (RFC 7515 section 2); what the standard library forgives, ends of lines and bits that
// are left over, is refused: one token has one form.
func decode(p []byte) ([]byte, bool) {
	for _, c := range p {
		if c == '\r' || c == '\n' {
			return nil, false
		}
	}
	out := make([]byte, base64.RawURLEncoding.DecodedLen(len(p)))
	n, err := base64.RawURLEncoding.Strict().Decode(out, p)
	return out[:n], err == nil
}

// header reads the JOSE header.
func (t *Token) header(h map[string]any) error {
	for _, name := range []string{"crit", "b64", "zip", "cty", "enc"} { // they change what the bytes mean
		if _, ok := h[name]; ok {
			return ErrMalformed
		}
	}
	if typ, ok := h["typ"]; ok {
		s, text := typ.(string)
		s = strings.TrimPrefix(strings.ToLower(s), "application/")
		if !text || s != "jwt" && s != "at+jwt" { // RFC 8725 section 3.11: a token made for something else
			return ErrMalformed
		}
	}
	alg, ok := h["alg"].(string)
	if !ok {
		return ErrMalformed
	}
	if !slices.Contains(algorithms(), alg) {
		return ErrAlgorithm
	}
	t.Algorithm = alg
	if kid, ok := h["kid"]; ok {
		if t.KeyID, ok = kid.(string); !ok {
			return ErrMalformed
		}
	}
	return nil
}

// registered reads the claims of RFC 7519 section 4.1, which have to be of the right kind.
func (t *Token) registered(c map[string]any) error {
	for _, name := range []string{"iss", "sub"} {
		v, given := c[name]
		s, ok := v.(string)
		if given && !ok || len(s) > maxSub {
			return ErrMalformed
		}
		if name == "iss" {
			t.Issuer = s
		} else {
			t.Subject = s
		}
	}
	switch aud := c["aud"].(type) {
	case nil:
		if _, given := c["aud"]; given {
			return ErrMalformed
		}
	case string:
		t.Audiences = []string{aud}
	case []any:
		for _, a := range aud {
			s, ok := a.(string)
			if !ok {
				return ErrMalformed
			}
			t.Audiences = append(t.Audiences, s)
		}
	default:
		return ErrMalformed
	}
	var ok [3]bool
	t.Expires, t.hasExpires, ok[0] = moment(c, "exp", math.Floor)
	t.NotBefore, _, ok[1] = moment(c, "nbf", math.Ceil)
	t.IssuedAt, _, ok[2] = moment(c, "iat", math.Ceil)
	if !ok[0] || !ok[1] || !ok[2] {
		return ErrMalformed
	}
	return nil
}

// moment reads a NumericDate; ok is false for what is none.
func moment(c map[string]any, name string, round func(float64) float64) (at int64, given, ok bool) {
	v, given := c[name]
	if !given {
		return 0, false, true
	}
	n, ok := v.(json.Number)
	if !ok {
		return 0, true, false
	}
	f, err := n.Float64()
	if err != nil || math.Abs(f) > 1<<53 {
		return 0, true, false
	}
	return int64(round(f)), true, true
}

// flatten keeps the values of an object's members by their paths. What is written out wins over what is within something.
func (t *Token) flatten(prefix string, o map[string]any) {
	for name, v := range o {
		path := prefix + name
		if _, ok := t.claims[path]; ok {
			continue
		}
		switch v := v.(type) {
		case map[string]any, nil:
		case []any:
			for _, e := range v {
				if s, ok := scalar(e); ok {
					t.claims[path] = append(t.claims[path], s)
				}
			}
		case string:
			t.claims[path] = []string{v}
			if prefix == "" && (name == "scope" || name == "scp") {
				t.claims[path] = strings.Fields(v)
			}
		default:
			if s, ok := scalar(v); ok {
				t.claims[path] = []string{s}
			}
		}
	}
	for name, v := range o {
		if inner, ok := v.(map[string]any); ok {
			t.flatten(prefix+name+".", inner)
		}
	}
}

func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		if v {
			return "true", true
		}
		return "false", true
	}
	return "", false
}

// Check says whether the token is of this issuer, for one of the audiences (none: for anybody) and in time, clocks being off by
// skew at most. Whether one that never ends is taken is for who asks (Ends, ErrEndless). Errors are ErrIssuer, ErrAudience, ErrExpired and ErrNotYet.
func (t *Token) Check(issuer string, audiences []string, skew time.Duration, now time.Time) error {
	if t.Issuer == "" || t.Issuer != issuer {
		return ErrIssuer
	}
	if len(audiences) > 0 && !slices.ContainsFunc(t.Audiences, func(a string) bool { return slices.Contains(audiences, a) }) {
		return ErrAudience
	}
	return t.InTime(skew, now)
}

// InTime is the part of Check that changes by itself.
func (t *Token) InTime(skew time.Duration, now time.Time) error {
	at, off := now.Unix(), int64(skew/time.Second)
	switch {
	case t.hasExpires && at-off >= t.Expires:
		return ErrExpired
	case at+off < t.NotBefore, at+off < t.IssuedAt:
		return ErrNotYet
	}
	return nil
}

// object reads one JSON object and nothing behind it. A name twice in one object is refused: two readers could take two of them.
func object(text []byte) (map[string]any, error) {
	if !utf8.Valid(text) || !json.Valid(text) {
		return nil, ErrMalformed
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := value(d, 0)
	o, ok := v.(map[string]any)
	if err != nil || !ok {
		return nil, ErrMalformed
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, ErrMalformed
	}
	return o, nil
}

func value(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil || depth > maxDepth {
		return nil, ErrMalformed
	}
	switch t {
	case json.Delim('{'):
		o := map[string]any{}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, ErrMalformed
			}
			name, ok := k.(string)
			if _, twice := o[name]; !ok || twice {
				return nil, ErrMalformed
			}
			if o[name], err = value(d, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := value(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	return t, nil
}
