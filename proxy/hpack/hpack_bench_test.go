package hpack_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/proxy/hpack"
)

var head = [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "reviews.default:9080"}, {":path", "/reviews/0"},
	{"user-agent", "curl/8.5.0"}, {"accept", "*/*"}, {"x-request-id", "5d7f1c1e-0b52-4b56-9d4a-0a3d2f1f7a10"}, {"content-type", "application/json"}}

func BenchmarkEncode(b *testing.B) {
	var enc hpack.Encoder
	enc.Init(4096)
	var block []byte
	fields := make([][2][]byte, len(head))
	for i, f := range head {
		fields[i] = [2][]byte{[]byte(f[0]), []byte(f[1])}
	}
	b.ReportAllocs()
	for b.Loop() {
		block = enc.Begin(block[:0])
		for i := range fields {
			block = enc.Append(block, fields[i][0], fields[i][1], false)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	var enc hpack.Encoder
	enc.Init(4096)
	var dec hpack.Decoder
	dec.Init(4096, 0, nil)
	var f hpack.Field
	var block []byte
	read := func() {
		dec.Begin(block)
		for {
			if ok, err := dec.Next(&f); err != nil {
				b.Fatal(err)
			} else if !ok {
				break
			}
		}
	}
	for range 3 {
		block = enc.Begin(block[:0])
		for _, f := range head {
			block = enc.Append(block, []byte(f[0]), []byte(f[1]), false)
		}
		read()
	}
	b.ReportAllocs()
	for b.Loop() {
		read()
	}
}

func BenchmarkDecodeHuffman(b *testing.B) {
	var enc hpack.Encoder
	enc.Init(0)
	enc.Huffman = true
	var dec hpack.Decoder
	dec.Init(4096, 0, nil)
	block := enc.Append(nil, []byte("x-request-id"), []byte("5d7f1c1e-0b52-4b56-9d4a-0a3d2f1f7a10"), true)
	var f hpack.Field
	b.ReportAllocs()
	for b.Loop() {
		dec.Begin(block)
		if ok, err := dec.Next(&f); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
