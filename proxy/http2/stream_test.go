package http2

import (
	"math/rand/v2"
	"testing"
)

// TestStreamsTable holds the table to a map, under the order of identifiers that connections see: counting up,
// some living long.
func TestStreamsTable(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 3))
		var table streams
		open := map[uint32]*Stream{}
		for id := uint32(1); id < 4000; id += 2 {
			s := &Stream{id: id}
			table.add(s)
			open[id] = s
			for _, o := range open { // in random order
				if len(open) < 2 || r.IntN(3) > 0 && len(open) < 60 {
					break
				}
				table.remove(o)
				delete(open, o.id)
			}
			if table.n != len(open) {
				t.Fatalf("%d in the table, %d open", table.n, len(open))
			}
			probe := uint32(r.IntN(int(id)+10)) | 1
			if table.find(probe) != open[probe] || table.find(id+2) != nil {
				t.Fatalf("stream %d: wrong answer", probe)
			}
			if id%401 == 0 {
				for k, o := range open {
					if table.find(k) != o {
						t.Fatalf("stream %d is lost", k)
					}
				}
			}
		}
	}
}
