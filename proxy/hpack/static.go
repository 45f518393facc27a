package hpack

// staticLen is the number of entries of the static table.
const staticLen = 61

// static is the static table (RFC 7541 appendix A); entry 0 is unused.
var static = [staticLen + 1]struct{ name, value []byte }{
	1:  {[]byte(":authority"), []byte("")},
	2:  {[]byte(":method"), []byte("GET")},
	3:  {[]byte(":method"), []byte("POST")},
	4:  {[]byte(":path"), []byte("/")},
	5:  {[]byte(":path"), []byte("/index.html")},
	6:  {[]byte(":scheme"), []byte("http")},
	7:  {[]byte(":scheme"), []byte("https")},
	8:  {[]byte(":status"), []byte("200")},
	9:  {[]byte(":status"), []byte("204")},
	10: {[]byte(":status"), []byte("206")},
	11: {[]byte(":status"), []byte("304")},
	12: {[]byte(":status"), []byte("400")},
	13: {[]byte(":status"), []byte("404")},
	14: {[]byte(":status"), []byte("500")},
	15: {[]byte("accept-charset"), []byte("")},
	16: {[]byte("accept-encoding"), []byte("gzip, deflate")},
	17: {[]byte("accept-language"), []byte("")},
	18: {[]byte("accept-ranges"), []byte("")},
	19: {[]byte("accept"), []byte("")},
	20: {[]byte("access-control-allow-origin"), []byte("")},
	21: {[]byte("age"), []byte("")},
	22: {[]byte("allow"), []byte("")},
	23: {[]byte("authorization"), []byte("")},
	24: {[]byte("cache-control"), []byte("")},
	25: {[]byte("content-disposition"), []byte("")},
	26: {[]byte("content-encoding"), []byte("")},
	27: {[]byte("content-language"), []byte("")},
	28: {[]byte("content-length"), []byte("")},
	29: {[]byte("content-location"), []byte("")},
	30: {[]byte("content-range"), []byte("")},
	31: {[]byte("content-type"), []byte("")},
	32: {[]byte("cookie"), []byte("")},
	33: {[]byte("date"), []byte("")},
	34: {[]byte("etag"), []byte("")},
	35: {[]byte("expect"), []byte("")},
	36: {[]byte("expires"), []byte("")},
	37: {[]byte("from"), []byte("")},
	38: {[]byte("host"), []byte("")},
	39: {[]byte("if-match"), []byte("")},
	40: {[]byte("if-modified-since"), []byte("")},
	41: {[]byte("if-none-match"), []byte("")},
	42: {[]byte("if-range"), []byte("")},
	43: {[]byte("if-unmodified-since"), []byte("")},
	44: {[]byte("last-modified"), []byte("")},
	45: {[]byte("link"), []byte("")},
	46: {[]byte("location"), []byte("")},
	47: {[]byte("max-forwards"), []byte("")},
	48: {[]byte("proxy-authenticate"), []byte("")},
	49: {[]byte("proxy-authorization"), []byte("")},
	50: {[]byte("range"), []byte("")},
	51: {[]byte("referer"), []byte("")},
	52: {[]byte("refresh"), []byte("")},
	53: {[]byte("retry-after"), []byte("")},
	54: {[]byte("server"), []byte("")},
	55: {[]byte("set-cookie"), []byte("")},
	56: {[]byte("strict-transport-security"), []byte("")},
	57: {[]byte("transfer-encoding"), []byte("")},
	58: {[]byte("user-agent"), []byte("")},
	59: {[]byte("vary"), []byte("")},
	60: {[]byte("via"), []byte("")},
	61: {[]byte("www-authenticate"), []byte("")},
}

// staticIndex finds fields of the static table: open addressing, keyed by hash; 0 is a free slot.
type staticIndex struct {
	names [256]uint8 // first entry of each name
	pairs [256]uint8
}

var staticFind = func() (x staticIndex) {
	put := func(slots *[256]uint8, h uint64, i uint8) {
		for h = h >> 56; slots[h] != 0; h = (h + 1) & 255 {
		}
		slots[h] = i
	}
	for i := 1; i <= staticLen; i++ {
		h := hash(0, static[i].name)
		if x.name(h, static[i].name) == 0 {
			put(&x.names, h, uint8(i))
		}
		put(&x.pairs, hash(h, static[i].value), uint8(i))
	}
	return x
}()

func (x *staticIndex) name(h uint64, name []byte) uint64 {
	for h = h >> 56; x.names[h] != 0; h = (h + 1) & 255 {
		if i := x.names[h]; string(static[i].name) == string(name) {
			return uint64(i)
		}
	}
	return 0
}

func (x *staticIndex) pair(h uint64, name, value []byte) uint64 {
	for h = h >> 56; x.pairs[h] != 0; h = (h + 1) & 255 {
		if i := x.pairs[h]; string(static[i].value) == string(value) && string(static[i].name) == string(name) {
			return uint64(i)
		}
	}
	return 0
}
