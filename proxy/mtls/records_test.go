package mtls

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzWholeRecords: what counts as whole is a row of records, and what is left is less than one.
func FuzzWholeRecords(f *testing.F) {
	record := func(n int) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(n)), make([]byte, n)...)
	}
	f.Add([]byte{})
	f.Add(record(10))
	f.Add(append(record(0), record(300)[:200]...))
	f.Add(append(record(1), 23, 3, 3, 0xff, 0xff, 1))
	f.Fuzz(func(t *testing.T, p []byte) {
		n := wholeRecords(p)
		at := 0
		for at < n {
			if len(p)-at < headerLen {
				t.Fatalf("%d of %d bytes are whole, but a header is cut at %d", n, len(p), at)
			}
			size := headerLen + int(binary.BigEndian.Uint16(p[at+3:]))
			if size > maxRecord {
				at = len(p) // left to tls.Conn to refuse
				break
			}
			at += size
		}
		if at != n {
			t.Fatalf("%d bytes are whole, records end at %d", n, at)
		}
		rest := p[n:]
		if len(rest) >= headerLen && len(rest) >= headerLen+int(binary.BigEndian.Uint16(rest[3:])) {
			t.Fatalf("a whole record was left: %x", rest[:headerLen])
		}
		if again := wholeRecords(bytes.Clone(p[:n])); again != n {
			t.Fatalf("%d bytes were whole, then %d", n, again)
		}
	})
}
