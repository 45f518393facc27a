// Package buffer lends byte slices to one event loop: size classes that are powers of two, kept up to a bound,
// so that the steady state allocates nothing and an idle connection holds nothing. A Pool belongs to one
// goroutine; it is not safe for concurrent use. Start reading at Pool.
package buffer

import "math/bits"

// Bounds of what is pooled, in bytes. Larger slices are made by the allocator and left to the collector.
const (
	Smallest = 512
	Largest  = 1 << 20
)

const (
	lowest  = 9  // log2(Smallest)
	highest = 20 // log2(Largest)
	classes = highest - lowest + 1
)

// DefaultLimit is how many bytes a Pool keeps for reuse when its Limit is 0.
const DefaultLimit = 1 << 20

// Pool keeps returned buffers for reuse. Its zero value is ready.
type Pool struct {
	Limit int // bytes kept for reuse at most; 0: DefaultLimit
	kept  int
	lent  int
	free  [classes][][]byte
}

// Get answers a slice of length 0 and capacity at least n. Its memory is not cleared.
func (p *Pool) Get(n int) []byte {
	p.lent++
	c := class(n)
	if c >= classes {
		return make([]byte, 0, n)
	}
	f := p.free[c]
	if last := len(f) - 1; last >= 0 {
		b := f[last]
		f[last] = nil
		p.free[c] = f[:last]
		p.kept -= cap(b)
		return b
	}
	return make([]byte, 0, Smallest<<c)
}

// Put takes back a slice that came from Get, or any other whose capacity is a size class; the caller must not
// touch it again. What is over the limit or of no class is left to the collector. Put(nil) does nothing.
func (p *Pool) Put(b []byte) {
	n := cap(b)
	if n > 0 {
		p.lent--
	}
	if n < Smallest || n > Largest || n&(n-1) != 0 {
		return
	}
	limit := p.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	if p.kept+n > limit {
		return
	}
	p.kept += n
	c := class(n)
	p.free[c] = append(p.free[c], b[:0])
}

// Append appends data to b, moving to a larger pooled slice when b is full. b may be nil.
func (p *Pool) Append(b, data []byte) []byte {
	need := len(b) + len(data)
	if need <= cap(b) {
		return append(b, data...)
	}
	if need > Largest { // else classes see to it: what grows piece by piece is not to be copied with each
		need = max(need, 2*cap(b))
	}
	grown := append(p.Get(need), b...)
	p.Put(b)
	return append(grown, data...)
}

// Kept answers how many bytes are kept for reuse.
func (p *Pool) Kept() int { return p.kept }

// Lent answers how many slices came from Get and were not put back, where nothing else is put.
func (p *Pool) Lent() int { return p.lent }

// Trim gives everything that is kept to the collector.
func (p *Pool) Trim() {
	for c := range p.free {
		clear(p.free[c])
		p.free[c] = p.free[c][:0]
	}
	p.kept = 0
}

// class answers the index of the smallest class that holds n bytes.
func class(n int) int {
	if n <= Smallest {
		return 0
	}
	return bits.Len(uint(n-1)) - lowest
}
