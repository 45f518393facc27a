package buffer_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/tulle-mesh/tulle/proxy/buffer"
)

func TestSizes(t *testing.T) {
	var p buffer.Pool
	for _, c := range []struct{ n, want int }{
		{0, 512}, {1, 512}, {512, 512}, {513, 1024}, {65536, 65536}, {65537, 131072}, {1 << 20, 1 << 20}, {1<<20 + 1, 1<<20 + 1},
	} {
		b := p.Get(c.n)
		if len(b) != 0 || cap(b) < c.want || c.want <= 1<<20 && cap(b) != c.want {
			t.Errorf("Get(%d): length %d, capacity %d, want %d", c.n, len(b), cap(b), c.want)
		}
	}
}

func TestReuseAndBounds(t *testing.T) {
	p := buffer.Pool{Limit: 4096}
	b := append(p.Get(1000), 1, 2, 3)
	p.Put(b)
	if p.Kept() != 1024 {
		t.Errorf("%d bytes kept", p.Kept())
	}
	if again := p.Get(600); &again[:1][0] != &b[0] || len(again) != 0 || p.Kept() != 0 {
		t.Error("the slice was not lent again")
	}
	for range 100 {
		p.Put(make([]byte, 0, 1024))
	}
	if p.Kept() != 4096 {
		t.Errorf("%d bytes kept, limit 4096", p.Kept())
	}
	p.Trim()
	p.Put(nil)
	p.Put(make([]byte, 100))
	p.Put(make([]byte, 1000))
	p.Put(make([]byte, 2<<20))
	if p.Kept() != 0 {
		t.Errorf("%d bytes kept of slices that are of no class", p.Kept())
	}
}

// TestNeverLentTwice: what two holders have never overlaps, and Append keeps what is there.
func TestNeverLentTwice(t *testing.T) {
	var p buffer.Pool
	r := rand.New(rand.NewPCG(1, 2))
	held := map[byte][]byte{}
	for i := range 20_000 {
		id := byte(r.IntN(50))
		b, ok := held[id]
		if ok && !bytes.Equal(b, bytes.Repeat([]byte{id}, len(b))) {
			t.Fatalf("step %d: somebody else wrote into a lent slice", i)
		}
		switch {
		case !ok:
			held[id] = p.Get(r.IntN(5000))
		case r.IntN(3) == 0:
			p.Put(b)
			delete(held, id)
		default:
			held[id] = p.Append(b, bytes.Repeat([]byte{id}, r.IntN(3000)))
		}
	}
	if n := testing.AllocsPerRun(100, func() { p.Put(p.Append(p.Get(700), nil)) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestLent: what was lent and not put back is known, whatever size it has grown to.
func TestLent(t *testing.T) {
	var p buffer.Pool
	a, b := p.Append(nil, make([]byte, 600)), p.Get(2<<20)
	a = p.Append(a, make([]byte, 5000))
	if p.Lent() != 2 {
		t.Errorf("%d are lent, want 2", p.Lent())
	}
	p.Put(a)
	p.Put(b)
	p.Put(nil)
	if p.Lent() != 0 {
		t.Errorf("%d are lent, all were put back", p.Lent())
	}
}
