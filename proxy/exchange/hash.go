package exchange

import (
	"bytes"
	"math/bits"
	"net/netip"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// takeHash computes what the route's hash keys come to: xxHash64 of each value that is there, combined in their order as
// Envoy does, so that both send a client to the same place of a ring. A cookie that is not there and may be made is
// made; the client gets it with the response.
func (x *Exchange) takeHash(keys []model.HashKey) { x.hash, x.hashed = x.combine(keys, false) }

// combine answers what keys come to, and whether any is there; fresh: cookies that are made tell requests apart, not
// connections.
func (x *Exchange) combine(keys []model.HashKey, fresh bool) (sum uint64, some bool) {
	for i := range keys {
		k := &keys[i]
		h, ok := x.hashOf(k, fresh)
		if !ok {
			continue
		}
		if some {
			h ^= bits.RotateLeft64(sum, 1)
		}
		sum, some = h, true
		if k.Terminal {
			break
		}
	}
	return sum, some
}

func (x *Exchange) hashOf(k *model.HashKey, fresh bool) (uint64, bool) {
	var v []byte
	switch k.Kind {
	case model.HashHeader:
		v = x.headerToHash(k.Name)
	case model.HashCookie:
		if v = cookie(&x.head, k.Name); v == nil && k.Generate {
			v = x.makeCookie(k, fresh)
		}
	case model.HashSourceIP:
		v = x.whose().Unmap().AppendTo(x.scratch[:0])
		x.scratch = v
	case model.HashQuery:
		v = query(x.head.Target, k.Name)
	case model.HashPath:
		v = model.PathKey(x.head.Target, k.Name)
	}
	if len(v) == 0 {
		return 0, false
	}
	return xxhash.Sum64(v), true
}

// headerToHash answers the value of a header; of several of one name the values together.
func (x *Exchange) headerToHash(name string) []byte {
	switch name {
	case ":authority", "host":
		return x.head.Authority
	case ":path":
		return x.head.Target
	case ":method":
		return x.head.Method
	}
	var first []byte
	n := 0
	for i := range x.head.Fields {
		if message.EqualFold(x.head.Fields[i].Name, name) {
			if n++; n == 1 {
				first = x.head.Fields[i].Value
				continue
			}
			if n == 2 {
				x.scratch = append(x.scratch[:0], first...)
			}
			x.scratch = append(x.scratch, x.head.Fields[i].Value...)
			first = x.scratch
		}
	}
	return first
}

// whose answers the address of the client.
func (x *Exchange) whose() netip.Addr {
	if x.caller.IsValid() {
		return x.caller.Addr()
	}
	return x.origin.Remote.Addr()
}

// cookie answers the value of a cookie; nil if there is none.
func cookie(h *message.Head, name string) []byte {
	for i := range h.Fields {
		if !message.EqualFold(h.Fields[i].Name, "cookie") {
			continue
		}
		for rest := h.Fields[i].Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, semicolon)
			key, v, ok := bytes.Cut(bytes.TrimSpace(pair), equals)
			if ok && string(key) == name {
				if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
					v = v[1 : n-1]
				}
				return v
			}
		}
	}
	return nil
}

var (
	semicolon = []byte{';'}
	equals    = []byte{'='}
	ampersand = []byte{'&'}
)

// query answers the first value of a query parameter, as it is written.
func query(target []byte, name string) []byte {
	_, rest, _ := bytes.Cut(target, question)
	for len(rest) > 0 {
		var pair []byte
		pair, rest, _ = bytes.Cut(rest, ampersand)
		if key, v, _ := bytes.Cut(pair, equals); string(key) == name {
			return v
		}
	}
	return nil
}

var question = []byte{'?'}

// makeCookie makes the cookie of k, or answers the one that was made already: its value tells clients apart by their
// connection, or is fresh. The response sets it.
func (x *Exchange) makeCookie(k *model.HashKey, fresh bool) []byte {
	if v := x.madeCookie(k.Name); v != nil {
		return v
	}
	b := x.origin.Remote.AppendTo(x.scratch[:0])
	b = x.origin.Wanted.AppendTo(b)
	x.scratch = b
	sum := xxhash.Sum64(b)
	if fresh {
		sum = x.w.random.Uint64()
	}
	value := strconv.AppendUint(x.scratch[:0], sum, 16)
	n := len(value)
	value = append(append(append(append(value, k.Name...), `="`...), value[:n]...), '"')
	if k.TTL > 0 {
		value = strconv.AppendInt(append(value, "; Max-Age="...), int64(k.TTL/time.Second), 10)
	}
	if k.Path != "" {
		value = append(append(value, "; Path="...), k.Path...)
	}
	value = append(value, "; HttpOnly"...)
	x.scratch = value
	x.cookies = append(x.cookies, value[n:]...)
	x.cookies = append(x.cookies, 0) // between two
	return value[:n]
}

// madeCookie answers the value of a cookie that was made for this exchange, nil if there is none.
func (x *Exchange) madeCookie(name string) []byte {
	for rest := x.cookies; len(rest) > 0; {
		var c []byte
		c, rest, _ = bytes.Cut(rest, zero)
		if n := len(name); len(c) > n+2 && string(c[:n]) == name && c[n] == '=' && c[n+1] == '"' {
			v, _, _ := bytes.Cut(c[n+2:], quote)
			return v
		}
	}
	return nil
}

var quote = []byte{'"'}

// setCookies adds the cookies that were made to the response.
func (x *Exchange) setCookies(h *message.Head) {
	for rest := x.cookies; len(rest) > 0; {
		var v []byte
		v, rest, _ = bytes.Cut(rest, zero)
		h.Add(nameSetCookie, v)
	}
}

var (
	zero          = []byte{0}
	nameSetCookie = []byte("set-cookie")
)
