package sniff

// hello looks for a TLS handshake record with a ClientHello (RFC 8446 sections 4.1.2 and 5.1). Its first byte
// can begin no HTTP, so a part of it is TLS already.
func hello(p []byte) Verdict {
	if len(p) > 1 && p[1] != 3 || len(p) > 2 && p[2] > 4 || len(p) > 5 && p[5] != 1 {
		return Opaque
	}
	return TLS
}

// ServerName finds the SNI host name (RFC 6066 section 3) in a ClientHello that p starts with. complete is false
// while the first record is not there as a whole; name is nil if there is none, or if the ClientHello is
// malformed or goes on in another record.
func ServerName(p []byte) (name []byte, complete bool) {
	if len(p) < 5 {
		return nil, false
	}
	if hello(p) != TLS || p[0] != 22 {
		return nil, true
	}
	n := int(p[3])<<8 | int(p[4])
	if len(p) < 5+n {
		return nil, n > 1<<14+256
	}
	r := reader(p[5 : 5+n])
	r.skip(1) // msg_type
	body := r.vector(3)
	body.skip(2 + 32) // legacy_version, random
	body.vector(1)    // legacy_session_id
	body.vector(2)    // cipher_suites
	body.vector(1)    // legacy_compression_methods
	for ext := body.vector(2); len(ext) >= 4; {
		kind := ext.number(2)
		data := ext.vector(2)
		if kind != 0 {
			continue
		}
		for list := data.vector(2); len(list) >= 3; {
			if kind, host := list.number(1), list.vector(2); kind == 0 && len(host) > 0 {
				return host, true
			}
		}
		return nil, true
	}
	return nil, true
}

// reader takes things off the front of bytes; what is not there reads as nothing.
type reader []byte

func (r *reader) skip(n int) { *r = (*r)[min(n, len(*r)):] }

func (r *reader) number(size int) (v int) {
	if len(*r) < size {
		*r = nil
		return 0
	}
	for _, c := range (*r)[:size] {
		v = v<<8 | int(c)
	}
	*r = (*r)[size:]
	return v
}

func (r *reader) vector(size int) reader {
	n := r.number(size)
	if n > len(*r) {
		*r = nil
		return nil
	}
	v := (*r)[:n]
	*r = (*r)[n:]
	return v
}
