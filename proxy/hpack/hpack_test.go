package hpack_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	oracle "golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/proxy/hpack"
)

type field struct {
	name, value string
	sensitive   bool
}

// decode decodes a block whole, holding every field to its promise of being valid until the next Begin.
func decode(d *hpack.Decoder, block []byte) ([]field, error) {
	d.Begin(block)
	var held []hpack.Field
	for {
		var f hpack.Field
		ok, err := d.Next(&f)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		held = append(held, f)
	}
	var out []field
	for _, f := range held {
		out = append(out, field{string(f.Name), string(f.Value), f.Sensitive})
	}
	return out, nil
}

// someFields makes heads as they come on one connection: much repeats, some never does.
func someFields(r *rand.Rand) []field {
	fs := []field{{":method", "GET", false}, {":path", fmt.Sprint("/p/", r.IntN(5)), false}, {":scheme", "http", false}}
	for range r.IntN(12) {
		f := field{name: fmt.Sprint("x-name-", r.IntN(40)), value: fmt.Sprint("value ", r.IntN(6))}
		switch r.IntN(12) {
		case 0:
			f.value = fmt.Sprint(r.Uint64())
		case 1:
			f.value = strings.Repeat("long ", r.IntN(1200))
		case 2:
			f.sensitive = true
		case 3:
			f.name = []string{"accept", "date", "content-type", "via"}[r.IntN(4)]
		case 4:
			b := make([]byte, r.IntN(40))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			f.value = string(b)
		case 5:
			f.value = ""
		}
		fs = append(fs, f)
	}
	return fs
}

func same(t *testing.T, want, got []field) {
	t.Helper()
	if !slices.Equal(want, got) {
		t.Fatalf("want %+v\n got %+v", want, got)
	}
}

// TestDecoderAgainstOracle: what the other implementation encodes, with changing table sizes, we decode.
func TestDecoderAgainstOracle(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var buf bytes.Buffer
		enc := oracle.NewEncoder(&buf)
		var dec hpack.Decoder
		dec.Init(4096, 0, nil)
		for range 60 {
			buf.Reset()
			if r.IntN(10) == 0 {
				enc.SetMaxDynamicTableSize(uint32(r.IntN(4097)))
			}
			want := someFields(r)
			for _, f := range want {
				if err := enc.WriteField(oracle.HeaderField{Name: f.name, Value: f.value, Sensitive: f.sensitive}); err != nil {
					t.Fatal(err)
				}
			}
			got, err := decode(&dec, buf.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			same(t, want, got)
		}
	}
}

// TestEncoderAgainstOracle: what we encode, the other implementation and we decode.
func TestEncoderAgainstOracle(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		var enc hpack.Encoder
		enc.Init(4096)
		enc.Huffman = seed%2 == 0
		var dec hpack.Decoder
		dec.Init(8192, 0, nil)
		odec := oracle.NewDecoder(8192, nil)
		for range 60 {
			if r.IntN(10) == 0 {
				for range 1 + r.IntN(2) {
					enc.SetMax(uint32(r.IntN(8193)))
				}
			}
			want := someFields(r)
			block := enc.Begin(nil)
			for _, f := range want {
				block = enc.Append(block, []byte(f.name), []byte(f.value), f.sensitive)
			}
			got, err := decode(&dec, block)
			if err != nil {
				t.Fatal(err)
			}
			same(t, want, got)
			os, err := odec.DecodeFull(block)
			if err != nil {
				t.Fatal(err)
			}
			got = got[:0]
			for _, f := range os {
				got = append(got, field{f.Name, f.Value, f.Sensitive})
			}
			same(t, want, got)
		}
	}
}

// TestEncoderCompresses: a head that repeats becomes one byte per field.
func TestEncoderCompresses(t *testing.T) {
	var enc hpack.Encoder
	enc.Init(4096)
	var block []byte
	for range 3 {
		block = enc.Begin(block[:0])
		for i := range 20 {
			block = enc.Append(block, fmt.Appendf(nil, "x-field-%d", i), []byte("some value that repeats"), false)
		}
	}
	if len(block) > 25 {
		t.Errorf("20 fields that were there before take %d bytes", len(block))
	}
}

func TestDecoderRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		block string
		err   error
	}{
		"index 0":              {"\x80", hpack.ErrIndex},
		"index beyond":         {"\xbe", hpack.ErrIndex},
		"name index beyond":    {"\x7f\x10\x01a", hpack.ErrIndex},
		"integer too long":     {"\xff\x80\x80\x80\x80\x80\x01", hpack.ErrInteger},
		"integer ends early":   {"\xff\x80", hpack.ErrTruncated},
		"string ends early":    {"\x40\x05ab", hpack.ErrTruncated},
		"no value":             {"\x40\x01a", hpack.ErrTruncated},
		"huge string":          {"\x40\x7f\xff\xff\xff\x7fa", hpack.ErrTruncated},
		"update after a field": {"\x82\x20", hpack.ErrUpdate},
		"update too large":     {"\x3f\xe2\x1f", hpack.ErrUpdate},
		"padding of 8 bits":    {"\x40\x01a\x82\x1f\xff", hpack.ErrHuffman},
		"padding of zeros":     {"\x40\x01a\x81\x18", hpack.ErrHuffman},
		"EOS":                  {"\x40\x01a\x84\xff\xff\xff\xff", hpack.ErrHuffman},
	} {
		var dec hpack.Decoder
		dec.Init(4096, 0, nil)
		if _, err := decode(&dec, []byte(tc.block)); err != tc.err {
			t.Errorf("%s: %v, want %v", name, err, tc.err)
		}
	}
}

// TestTooLarge: fields over the bound are dropped, the table stays right.
func TestTooLarge(t *testing.T) {
	var enc hpack.Encoder
	enc.Init(4096)
	var dec hpack.Decoder
	dec.Init(4096, 200, nil)
	big := bytes.Repeat([]byte("x"), 150)
	block := enc.Append(nil, []byte("a"), big, false)
	block = enc.Append(block, []byte("b"), big, false)
	got, err := decode(&dec, block)
	if err != nil || !dec.TooLarge() || len(got) != 1 {
		t.Fatal(got, err, dec.TooLarge())
	}
	got, err = decode(&dec, enc.Append(nil, []byte("b"), big, false))
	if err != nil || dec.TooLarge() || len(got) != 1 || got[0].name != "b" {
		t.Fatal(got, err, dec.TooLarge())
	}
}

func TestClassify(t *testing.T) {
	calls := 0
	var dec hpack.Decoder
	dec.Init(4096, 0, func(name, value []byte, known uint8) uint8 {
		calls++
		if string(name) == "x" {
			if known != 0 && known != 9 {
				t.Errorf("known %d", known)
			}
			return 9
		}
		return 1
	})
	calls = 0
	var f hpack.Field
	for _, b := range []string{"\x40\x01x\x01y", "\xbe", "\x7e\x01z"} {
		dec.Begin([]byte(b))
		if ok, err := dec.Next(&f); !ok || err != nil || f.Class != 9 {
			t.Fatal(ok, err, f.Class)
		}
	}
	if calls != 2 {
		t.Errorf("%d calls for two literals", calls)
	}
}

func TestNoAllocation(t *testing.T) {
	var enc hpack.Encoder
	enc.Init(4096)
	enc.Huffman = true
	var dec hpack.Decoder
	dec.Init(4096, 0, nil)
	var block, id []byte
	n := 0
	var f hpack.Field
	round := func() {
		block = enc.Begin(block[:0])
		n++
		id = strconv.AppendInt(id[:0], int64(n%1000+1000), 10)
		block = enc.Append(block, []byte(":path"), []byte("/reviews/0"), false)
		block = enc.Append(block, []byte("x-request-id"), id, false)
		block = enc.Append(block, []byte("x-often"), id[:2], false)
		dec.Begin(block)
		for {
			ok, err := dec.Next(&f)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return
			}
		}
	}
	for range 5000 {
		round()
	}
	if a := testing.AllocsPerRun(5000, round); a > 0 {
		t.Errorf("%v allocations per head", a)
	}
}

// FuzzDecode: for any bytes we and the other implementation agree on the fields and on whether it is an error.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"), []byte("\xbe"))
	f.Add([]byte("\x20\x3f\xe1\x1f\x40\x01a\x01b"), []byte("\xbe\x10\x01a\x01b"))
	f.Add([]byte("\x40\x01a\x01b"), []byte("\x3f\x62\x20"))
	f.Add([]byte("\x40\x01a\x84\xff\xff\xff\xff"), []byte{})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		var dec hpack.Decoder
		dec.Init(4096, 0, nil)
		odec := oracle.NewDecoder(4096, nil)
		for _, block := range [][]byte{one, two} {
			got, err := decode(&dec, block)
			want, oerr := odec.DecodeFull(block)
			if err == hpack.ErrInteger || err == hpack.ErrTruncated && oerr != nil {
				return // they permit larger integers
			}
			if err == hpack.ErrUpdate && oerr == nil {
				return // they permit an update after a field while the table is empty
			}
			if err == nil && oerr != nil && twoUpdates(block) {
				return // they refuse the second update of a block, which RFC 7541 section 4.2 permits, unless the table is empty
			}
			if (err == nil) != (oerr == nil) {
				t.Fatalf("%x: we say %v, they say %v", block, err, oerr)
			}
			if err != nil {
				return
			}
			var w []field
			for _, f := range want {
				w = append(w, field{f.Name, f.Value, f.Sensitive})
			}
			same(t, w, got)
		}
	})
}

// twoUpdates reports whether a block begins with two dynamic table size updates (001xxxxx, RFC 7541 section 6.3).
func twoUpdates(block []byte) bool {
	for range 2 {
		if len(block) == 0 || block[0]>>5 != 1 {
			return false
		}
		long := block[0]&31 == 31
		for block = block[1:]; long && len(block) > 0; block = block[1:] {
			long = block[0] >= 0x80
		}
	}
	return true
}

// FuzzHuffman: strings survive, and our code is the other implementation's.
func FuzzHuffman(f *testing.F) {
	f.Add([]byte("www.example.com"))
	f.Add([]byte{0, 255, 10, 13, 22})
	f.Fuzz(func(t *testing.T, s []byte) {
		var enc hpack.Encoder
		enc.Init(0)
		enc.Huffman = true
		var dec hpack.Decoder
		dec.Init(0, 0, nil)
		block := enc.Append(enc.Begin(nil), []byte("x-fuzz"), s, true)
		got, err := decode(&dec, block)
		if err != nil {
			t.Fatal(err)
		}
		same(t, []field{{"x-fuzz", string(s), true}}, got)
		if coded := oracle.AppendHuffmanString(nil, string(s)); len(coded) < len(s) && !bytes.HasSuffix(block, coded) {
			t.Fatalf("code differs for %q", s)
		}
	})
}
