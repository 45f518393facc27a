package hpack

// Encoder encodes header blocks. A field is put into the table when it comes for the second time, or when its
// name is not in a table yet; so values that never repeat (request ids, dates) do not push others out.
type Encoder struct {
	Huffman bool // use Huffman code where it is shorter

	table  table
	limit  uint32 // largest table we use, whatever the peer permits
	least  uint32 // smallest size since the last block
	update bool   // the next block has to start with a size update
	index  *index
}

// index finds entries by hash. It forgets when two entries fall on the same place, which costs compression
// only. Values are sequence number + 1; a dead one is seen by its distance.
type index struct {
	pairs [128][2]uint32
	names [64][2]uint32
	seen  [256]uint16 // fingerprints of fields that came once
}

// Init makes e ready. limit bounds the table whatever the peer permits; DefaultTable until SetMax.
func (e *Encoder) Init(limit uint32) {
	*e = Encoder{Huffman: e.Huffman, limit: limit}
	e.table.max = DefaultTable
	e.least = DefaultTable
	if limit < DefaultTable {
		e.SetMax(limit)
	}
}

// SetMax tells what the peer's SETTINGS_HEADER_TABLE_SIZE permits.
func (e *Encoder) SetMax(n uint32) {
	n = min(n, e.limit)
	if n == e.table.max {
		return
	}
	e.table.setMax(n)
	e.least = min(e.least, n)
	e.update = true
}

// Begin starts a block: it appends what has to stand before the fields.
func (e *Encoder) Begin(dst []byte) []byte {
	if !e.update {
		return dst
	}
	if e.least < e.table.max {
		// It was smaller in between, so that has to be said. Saying 0 instead, and emptying the table, is as
		// right, and is understood by x/net's decoder, which refuses a second update unless the table is empty.
		kept := e.table.max
		e.table.setMax(0)
		e.table.setMax(kept)
		dst = append(dst, 0x20)
	}
	e.update, e.least = false, e.table.max
	return appendInteger(dst, 0x20, 5, uint64(e.table.max))
}

// AppendStatic appends a field of the static table by its index, 1 to 61.
func (e *Encoder) AppendStatic(dst []byte, i uint8) []byte { return append(dst, 0x80|i) }

// Append appends a field; name is in lower case. Sensitive fields are never indexed, here or further on.
func (e *Encoder) Append(dst, name, value []byte, sensitive bool) []byte {
	hn := hash(0, name)
	if sensitive {
		return e.appendLiteral(dst, 0x10, 4, e.findName(hn, name), name, value)
	}
	hv := hash(hn, value)
	if i := staticFind.pair(hv, name, value); i != 0 {
		return append(dst, 0x80|byte(i))
	}
	if i := e.findPair(hv, name, value); i != 0 {
		return appendInteger(dst, 0x80, 7, i)
	}
	i := e.findName(hn, name)
	if e.keep(i, hv, len(name)+len(value)) {
		dst = e.appendLiteral(dst, 0x40, 6, i, name, value)
		e.insert(hn, hv, name, value)
		return dst
	}
	return e.appendLiteral(dst, 0, 4, i, name, value)
}

// keep decides whether a field that is not in a table is put there.
func (e *Encoder) keep(name, hv uint64, size int) bool {
	if uint64(size)+overhead > uint64(e.table.max)/2 {
		return false
	}
	if e.index == nil {
		e.index = new(index)
	}
	if name == 0 {
		return true
	}
	mark := uint16(hv>>40) | 1
	slot := &e.index.seen[hv>>8&255]
	if *slot == mark {
		*slot = 0
		return true
	}
	*slot = mark
	return false
}

func (e *Encoder) insert(hn, hv uint64, name, value []byte) {
	e.table.compact()
	en, seq := e.table.add(name, value)
	if en == nil {
		return
	}
	en.hash = uint32(hv >> 32)
	remember(&e.index.pairs[hv&127], seq)
	remember(&e.index.names[hn&63], seq)
}

// remember puts seq into the first place and what was there into the second, whose entry is the older one.
func remember(two *[2]uint32, seq uint32) { two[0], two[1] = seq+1, two[0] }

// alive answers the entry that a place of index stands for, and its HPACK index; nil if it is gone.
func (e *Encoder) alive(v uint32) (*entry, uint64) {
	back := e.table.next - (v - 1) // 1 for the newest
	if v == 0 || back > e.table.count() {
		return nil, 0
	}
	return e.table.entry(v - 1), uint64(back) + staticLen
}

func (e *Encoder) findPair(hv uint64, name, value []byte) uint64 {
	if e.index == nil {
		return 0
	}
	for _, v := range e.index.pairs[hv&127] {
		en, i := e.alive(v)
		if en == nil || en.hash != uint32(hv>>32) {
			continue
		}
		if n, v := e.table.strings(en); string(n) == string(name) && string(v) == string(value) {
			return i
		}
	}
	return 0
}

func (e *Encoder) findName(hn uint64, name []byte) uint64 {
	if i := staticFind.name(hn, name); i != 0 || e.index == nil {
		return i
	}
	for _, v := range e.index.names[hn&63] {
		if en, i := e.alive(v); en != nil {
			if n, _ := e.table.strings(en); string(n) == string(name) {
				return i
			}
		}
	}
	return 0
}

func (e *Encoder) appendLiteral(dst []byte, bits byte, prefix uint, i uint64, name, value []byte) []byte {
	dst = appendInteger(dst, bits, prefix, i)
	if i == 0 {
		dst = e.appendString(dst, name)
	}
	return e.appendString(dst, value)
}

func (e *Encoder) appendString(dst, s []byte) []byte {
	if e.Huffman {
		if n := huffmanSize(s); n < len(s) {
			return appendHuffman(appendInteger(dst, 0x80, 7, uint64(n)), s)
		}
	}
	return append(appendInteger(dst, 0, 7, uint64(len(s))), s...)
}

// appendInteger appends n with a prefix (RFC 7541 section 5.1).
func appendInteger(dst []byte, bits byte, prefix uint, n uint64) []byte {
	mask := uint64(1)<<prefix - 1
	if n < mask {
		return append(dst, bits|byte(n))
	}
	dst = append(dst, bits|byte(mask))
	for n -= mask; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}
