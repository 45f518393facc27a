package http1

import (
	"testing"

	"github.com/tulle-mesh/tulle/proxy/http1"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// TestCodec asks the codec alone, which needs no proxy: it refuses what the corpus says is to be refused, and nothing
// else. What depends on configuration or on the upstream is left out.
func TestCodec(t *testing.T) {
	limits := http1.Limits{Head: 16 << 10, Fields: 50}
	for _, c := range load(t) {
		if c.Via != "main" || len(c.Send) == 0 || c.Send[0].Fields != nil {
			continue
		}
		var input []byte
		fin := false
		for _, s := range c.Send {
			input = append(input, s.Bytes...)
			fin = fin || s.FIN
		}
		want := false // refused?
		tunnel := false
		for _, w := range c.Want {
			want = want || w.Status == 400 || w.Status == 414 || w.Status == 431
			tunnel = tunnel || w.Raw != nil
		}
		if tunnel || c.File == "upgrade.txt" && !want || fin && !want || c.Answer != nil {
			continue // what follows is not for the codec
		}
		seen, err := requests(input, limits)
		if got := err != nil; got != want {
			t.Errorf("corpus/%s:%d %s (RFC %s): %v, refusal wanted: %t", c.File, c.Line, c.Name, c.RFC, err, want)
		}
		if err == nil && seen < len(c.Sees) {
			t.Errorf("corpus/%s:%d %s (RFC %s): %d requests, want %d", c.File, c.Line, c.Name, c.RFC, seen, len(c.Sees))
		}
	}
}

// requests parses as many requests as there are, and answers the error that ended it, if one did.
func requests(p []byte, limits http1.Limits) (seen int, err error) {
	var h message.Head
	for len(p) > 0 {
		n, f, err := http1.ParseRequest(p, &h, limits)
		if err != nil || n == 0 {
			return seen, err
		}
		p = p[n:]
		var b http1.Body
		b.Reset(f)
		for done := false; !done; {
			_, k, d, err := b.Next(p)
			if err != nil {
				return seen, err
			}
			if p, done = p[k:], d; k == 0 && !d {
				return seen, nil // the rest has not come
			}
		}
		seen++
		if h.Close {
			return seen, nil
		}
	}
	return seen, nil
}
