package hpack

// table is a dynamic table. Its strings lie one after the other in buf, oldest first, so eviction only moves
// the start. Entries are known by sequence number, which wraps.
type table struct {
	buf       []byte
	base      uint64 // position of buf[0] in the stream of all strings ever stored
	end       uint64 // position after the last string
	ring      []entry
	first     uint32 // sequence number of the oldest entry
	next      uint32 // sequence number of the entry to come
	size, max uint32
}

type entry struct {
	at          uint64 // position of the name; the value follows
	name, value uint32 // lengths
	hash        uint32 // Encoder only
	class       uint8  // Decoder only
}

func (t *table) count() uint32 { return t.next - t.first }

func (t *table) entry(seq uint32) *entry { return &t.ring[seq&uint32(len(t.ring)-1)] }

// strings answers name and value of e; valid until the next compact.
func (t *table) strings(e *entry) (name, value []byte) {
	b := t.buf[e.at-t.base:]
	n := e.name + e.value
	return b[:e.name:e.name], b[e.name:n:n]
}

// compact moves the live strings to the front of buf once the dead ones are in the majority. It makes slices
// into buf invalid, so it is done between blocks only.
func (t *table) compact() {
	live := t.end
	if t.count() > 0 {
		live = t.entry(t.first).at
	}
	dead := live - t.base
	if dead < 1024 || dead < t.end-live {
		return
	}
	if cap(t.buf) > 64<<10+4*int(t.max) {
		t.buf = append([]byte(nil), t.buf[dead:]...)
	} else {
		t.buf = t.buf[:copy(t.buf, t.buf[dead:])]
	}
	t.base = live
}

// setMax changes the bound and evicts what is over it.
func (t *table) setMax(max uint32) {
	t.max = max
	t.evict(0)
}

// evict makes room for need bytes; need is at most max.
func (t *table) evict(need uint32) {
	for t.size+need > t.max {
		e := t.entry(t.first)
		t.size -= e.name + e.value + overhead
		t.first++
	}
}

// add inserts an entry and answers it with its sequence number; nil if it is larger than the whole table,
// which then is empty (RFC 7541 section 4.4). name and value may point into the table.
func (t *table) add(name, value []byte) (*entry, uint32) {
	need := uint64(len(name)) + uint64(len(value)) + overhead
	if need > uint64(t.max) {
		t.first, t.size = t.next, 0
		return nil, 0
	}
	t.evict(uint32(need))
	if int(t.count()) == len(t.ring) {
		t.grow()
	}
	seq := t.next
	e := t.entry(seq)
	*e = entry{at: t.end, name: uint32(len(name)), value: uint32(len(value))}
	t.buf = append(append(t.buf, name...), value...)
	t.end += need - overhead
	t.size += uint32(need)
	t.next++
	return e, seq
}

func (t *table) grow() {
	old := *t
	t.ring = make([]entry, max(16, 2*len(old.ring)))
	for s := old.first; s != old.next; s++ {
		*t.entry(s) = *old.entry(s)
	}
}
