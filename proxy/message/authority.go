package message

import (
	"bytes"
	"net/netip"
)

// Authority reports whether a is host [":" port] (RFC 3986 section 3.2), not empty and without user information, as Host,
// :authority and the target of CONNECT have it (RFC 9110 sections 4.2.4 and 7.2). port: the port must be there. It is
// stricter than RFC 3986 where implementations differ: no percent-encoding, no comma, no zone of an IPv6 address.
func Authority(a []byte, port bool) bool {
	for _, c := range a {
		if !authorityByte[c] {
			return false
		}
	}
	host := a
	if len(a) > 0 && a[0] == '[' {
		end := bytes.IndexByte(a, ']')
		if end < 0 || !address6(a[1:end]) {
			return false
		}
		host, a = a[:end+1], a[end+1:]
	} else {
		end := bytes.IndexByte(a, ':')
		if end < 0 {
			end = len(a)
		}
		if host, a = a[:end], a[end:]; bytes.ContainsAny(host, "[]") {
			return false
		}
	}
	if len(host) == 0 {
		return false
	}
	if len(a) == 0 {
		return !port
	}
	if a[0] != ':' || len(a) > 6 || port && len(a) == 1 {
		return false
	}
	for _, c := range a[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// authorityByte holds for the bytes of a host and a port.
var authorityByte = makeAuthorityByte()

func makeAuthorityByte() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "-._~!$&'()*+;=:[]" {
		t[c] = true
	}
	return t
}

// address6 reports whether a is an IPv6 address (RFC 3986 section 3.2.2) without a zone.
func address6(a []byte) bool {
	ip, err := netip.ParseAddr(string(a))
	return err == nil && ip.Is6() && ip.Zone() == ""
}
