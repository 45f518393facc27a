package jointoken_test

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/tulle-mesh/tulle/identity/jointoken"
)

func token() jointoken.Token {
	return jointoken.Token{ID: "0123456789abcdef", Secret: bytes.Repeat([]byte{7}, 20), Root: sha256.Sum256([]byte("root"))}
}

func TestPins(t *testing.T) {
	got, err := jointoken.Parse(token().String())
	if err != nil || !got.Pins([]byte("root")) || got.Pins([]byte("other")) {
		t.Fatal(got, err)
	}
}

// FuzzParse: what is accepted is exactly what String writes.
func FuzzParse(f *testing.F) {
	f.Add(token().String())
	f.Add("tulle-join.0123456789abcdef..")
	f.Add(token().String() + ".")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := jointoken.Parse(s); err == nil && got.String() != s {
			t.Fatalf("%q became %q", s, got)
		}
	})
}
