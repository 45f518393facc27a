package exchange

import (
	"encoding/pem"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// fieldXFCC tells upstreams about the client's certificate, in Envoy's form.
const fieldXFCC = "x-forwarded-client-cert"

var nameXFCC = []byte(fieldXFCC)

// certify does with x-forwarded-client-cert what the chain says. What clients without a certificate say of
// themselves is believed only where it is always forwarded.
func (x *Exchange) certify(c *model.HTTP) {
	if c.XFCC == model.XFCCAlwaysForwardOnly {
		return
	}
	if c.XFCC == model.XFCCSanitize || x.origin.Conn.Peer() == nil {
		if x.head.Has(fieldXFCC) {
			x.head.Remove(fieldXFCC)
		}
		return
	}
	if c.XFCC == model.XFCCForwardOnly {
		return
	}
	n := len(x.notes)
	if c.XFCC == model.XFCCAppendForward {
		for i := range x.head.Fields {
			if message.EqualFold(x.head.Fields[i].Name, fieldXFCC) {
				x.notes = append(append(x.notes, x.head.Fields[i].Value...), ',')
			}
		}
	}
	x.notes = append(x.notes, x.origin.Conn.Forwarded(func(conn *observe.Connection) []byte { return describe(conn, &c.XFCCDetails) })...)
	x.head.Remove(fieldXFCC)
	x.head.Add(nameXFCC, x.notes[n:len(x.notes):len(x.notes)])
}

// describe makes the element for one connection: By and Hash, and what details ask for.
func describe(conn *observe.Connection, details *model.XFCCDetails) []byte {
	var b []byte
	put := func(key, value, quote string) {
		if len(b) > 0 {
			b = append(b, ';')
		}
		b = append(append(append(append(append(b, key...), '='), quote...), value...), quote...)
	}
	if conn.Certificate != nil {
		for _, u := range conn.Certificate.URIs {
			put("By", u.String(), "")
		}
	}
	put("Hash", conn.PeerHash(), "")
	if details.Cert {
		put("Cert", escaped(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: conn.Peer().Raw})), `"`)
	}
	if details.Chain {
		var all []byte
		for _, cert := range conn.TLS.PeerCertificates {
			all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
		}
		put("Chain", escaped(all), `"`)
	}
	if details.Subject {
		put("Subject", quoted(conn.PeerSubject()), `"`)
	}
	if details.URI {
		for _, u := range conn.Peer().URIs {
			put("URI", u.String(), "")
		}
		if len(conn.Peer().URIs) == 0 {
			put("URI", "", "")
		}
	}
	if details.DNS {
		for _, name := range conn.Peer().DNSNames {
			put("DNS", name, "")
		}
	}
	return clean(b)
}

// escaped percent-encodes what is not unreserved.
func escaped(in []byte) string {
	const digits = "0123456789ABCDEF"
	var b []byte
	for _, c := range in {
		if unreserved(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

// quoted escapes what ends a quoted value.
func quoted(s string) string {
	var b []byte
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(b)
}

// clean takes out bytes that no field may hold: certificates may name anything.
func clean(b []byte) []byte {
	for i, c := range b {
		if c < 0x20 || c == 0x7f {
			b[i] = '?'
		}
	}
	return b
}
