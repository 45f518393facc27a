package hpack_test

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/tulle-mesh/tulle/proxy/hpack"
)

// TestBomb: a block that names one long entry of the table again and again, two bytes each time, is not multiplied by two thousand
// in our memory.
func TestBomb(t *testing.T) {
	const maxList = 64 << 10
	var d hpack.Decoder
	d.Init(hpack.DefaultTable, maxList, nil)
	block := append([]byte{0x40, 0x7f, 0xa1, 0x1e}, bytes.Repeat([]byte{'a'}, 4000)...) // a new name of 4000 bytes
	block = append(block, 0)                                                            // and no value
	block = append(block, bytes.Repeat([]byte{0x7e, 0}, 70_000)...)                     // the newest entry's name, anew
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d.Begin(block)
	var f hpack.Field
	var err error
	for ok := true; ok && err == nil; {
		ok, err = d.Next(&f)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 8<<20 {
		t.Errorf("%d KB on the wire made us allocate %d MB", len(block)>>10, got>>20)
	}
	if err != hpack.ErrBomb {
		t.Error(err)
	}
}
