// Package jointoken is the text that lets a workload of another machine join the mesh: it names the token,
// proves that the bearer was given it, and pins the mesh's root certificate, so that the first connection
// already knows whom it talks to. Pure; values are immutable.
package jointoken

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"strings"
)

// Token is one join token.
type Token struct {
	ID     string   // names it in listings; 16 hex digits
	Secret []byte   // 20 bytes
	Root   [32]byte // SHA-256 of the root certificate (DER)
}

const prefix = "tulle-join"

func encoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// String answers "tulle-join.<id>.<secret>.<root>".
func (t Token) String() string {
	e := encoding()
	return strings.Join([]string{prefix, t.ID, e.EncodeToString(t.Secret), e.EncodeToString(t.Root[:])}, ".")
}

// ErrMalformed is the answer for what is no join token. It does not repeat the text, which may be a secret.
var ErrMalformed = errors.New("this is not a join token: copy the whole line that 'tulle token' printed")

// Parse reads what String writes, and nothing else.
func Parse(s string) (Token, error) {
	part := strings.Split(s, ".")
	if len(part) != 4 || part[0] != prefix || len(part[1]) != 16 {
		return Token{}, ErrMalformed
	}
	if _, err := hex.DecodeString(part[1]); err != nil {
		return Token{}, ErrMalformed
	}
	secret, err := encoding().DecodeString(part[2])
	if err != nil || len(secret) != 20 {
		return Token{}, ErrMalformed
	}
	root, err := encoding().DecodeString(part[3])
	if err != nil || len(root) != sha256.Size {
		return Token{}, ErrMalformed
	}
	t := Token{ID: part[1], Secret: secret, Root: [32]byte(root)}
	if t.String() != s { // another spelling of the same bits
		return Token{}, ErrMalformed
	}
	return t, nil
}

// Pins reports whether a root certificate (DER) is the one that the token was made for.
func (t Token) Pins(root []byte) bool {
	sum := sha256.Sum256(root)
	return subtle.ConstantTimeCompare(sum[:], t.Root[:]) == 1
}
