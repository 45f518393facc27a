package hpack

import "math"

// Decoder decodes header blocks.
type Decoder struct {
	classify Classify
	classes  [staticLen + 1]uint8 // of the static table's fields
	table    table
	allowed  uint32 // largest table size the peer may choose
	maxList  int64

	block  []byte // not yet decoded
	arena  []byte // strings of this block that were in Huffman code
	left   int64  // bytes of the list that may still come
	work   int64  // likewise, dropped ones included
	start  bool   // no field yet: size updates are permitted
	large  bool
	shrink uint8 // blocks in a row that used little of a large arena
}

// Init makes d ready. maxTable is what SETTINGS_HEADER_TABLE_SIZE says to the peer; maxList bounds the sum of
// name, value and 32 per field of one block, above which fields are dropped (see TooLarge); 0: no bound.
// classify may be nil.
func (d *Decoder) Init(maxTable, maxList uint32, classify Classify) {
	*d = Decoder{classify: classify, allowed: maxTable, maxList: int64(maxList)}
	if maxList == 0 {
		d.maxList = math.MaxInt64
	}
	d.table.max = min(maxTable, DefaultTable) // until the encoder says that it uses more
	for i := 1; i <= staticLen; i++ {
		d.classes[i] = d.class(static[i].name, static[i].value, 0)
	}
}

// Begin starts a block, which has to be complete (HEADERS with all its CONTINUATION frames) and stay as it is
// until the last Next. What the last block's fields pointed to is no longer valid.
func (d *Decoder) Begin(block []byte) {
	d.block, d.left, d.start, d.large = block, d.maxList, true, false
	if d.work = d.maxList; d.maxList < math.MaxInt64 {
		d.work = 4*d.maxList + bombSlack
	}
	d.table.compact()
	if cap(d.arena) > 8<<10 && len(d.arena) < cap(d.arena)/4 {
		if d.shrink++; d.shrink == 64 {
			d.arena = nil
		}
	} else {
		d.shrink = 0
	}
	d.arena = d.arena[:0]
}

// TooLarge reports whether fields of this block were dropped because the list was over its bound. The table
// is right all the same, so the connection can go on.
func (d *Decoder) TooLarge() bool { return d.large }

// bombSlack is how much more than four times its bound a list may have before its block is given up. Two bytes can stand for
// a whole entry of the table, and have it copied into the table once more.
const bombSlack = 256 << 10

// Next decodes the next field into f; false at the end of the block.
func (d *Decoder) Next(f *Field) (bool, error) {
	for len(d.block) > 0 {
		field, err := d.next(f)
		if err != nil {
			d.block = nil
			return false, err
		}
		if !field {
			continue
		}
		d.start = false
		size := int64(len(f.Name)) + int64(len(f.Value)) + overhead
		if d.work -= size; d.work < 0 {
			d.block = nil
			return false, ErrBomb
		}
		if d.left -= size; d.left >= 0 {
			return true, nil
		}
		d.large, d.left = true, -1
	}
	return false, nil
}

// next decodes one representation (RFC 7541 section 6); false: it was a size update.
func (d *Decoder) next(f *Field) (bool, error) {
	b := d.block[0]
	switch {
	case b >= 0x80:
		i, err := d.integer(7)
		if err != nil {
			return false, err
		}
		f.Sensitive = false
		return true, d.lookup(i, f)
	case b >= 0x40:
		return true, d.literal(f, 6, true)
	case b >= 0x20:
		return false, d.update()
	}
	f.Sensitive = b >= 0x10
	return true, d.literal(f, 4, false)
}

func (d *Decoder) literal(f *Field, prefix uint, index bool) error {
	i, err := d.integer(prefix)
	if err != nil {
		return err
	}
	if index {
		f.Sensitive = false
	}
	known := uint8(0)
	if i > 0 {
		if err = d.lookup(i, f); err != nil {
			return err
		}
		known = f.Class
	} else if f.Name, err = d.string(); err != nil {
		return err
	}
	if f.Value, err = d.string(); err != nil {
		return err
	}
	f.Class = d.class(f.Name, f.Value, known)
	if index {
		if e, _ := d.table.add(f.Name, f.Value); e != nil {
			e.class = f.Class
		}
	}
	return nil
}

func (d *Decoder) class(name, value []byte, known uint8) uint8 {
	if d.classify == nil {
		return 0
	}
	return d.classify(name, value, known)
}

func (d *Decoder) lookup(i uint32, f *Field) error {
	if i == 0 {
		return ErrIndex
	}
	if i <= staticLen {
		f.Name, f.Value, f.Class = static[i].name, static[i].value, d.classes[i]
		return nil
	}
	if i -= staticLen; i > d.table.count() {
		return ErrIndex
	}
	e := d.table.entry(d.table.next - i)
	f.Name, f.Value = d.table.strings(e)
	f.Class = e.class
	return nil
}

func (d *Decoder) update() error {
	n, err := d.integer(5)
	if err != nil {
		return err
	}
	if !d.start || n > d.allowed {
		return ErrUpdate
	}
	d.table.setMax(n)
	return nil
}

// integer decodes an integer with a prefix of some bits (RFC 7541 section 5.1), at most 1<<28 and a little.
func (d *Decoder) integer(prefix uint) (uint32, error) {
	mask := uint32(1)<<prefix - 1
	n := uint32(d.block[0]) & mask
	if n < mask {
		d.block = d.block[1:]
		return n, nil
	}
	for i, b := range d.block[1:] {
		if i == 4 {
			return 0, ErrInteger
		}
		n += uint32(b&0x7f) << (7 * i)
		if b < 0x80 {
			d.block = d.block[i+2:]
			return n, nil
		}
	}
	return 0, ErrTruncated
}

// string decodes a string (RFC 7541 section 5.2).
func (d *Decoder) string() ([]byte, error) {
	if len(d.block) == 0 {
		return nil, ErrTruncated
	}
	coded := d.block[0] >= 0x80
	n, err := d.integer(7)
	if err != nil {
		return nil, err
	}
	if uint64(n) > uint64(len(d.block)) {
		return nil, ErrTruncated
	}
	s := d.block[:n:n]
	d.block = d.block[n:]
	if !coded {
		return s, nil
	}
	at := len(d.arena)
	if need := huffmanBound(len(s)); cap(d.arena)-at < need {
		// A new piece; the strings in the old one stay where they are.
		d.arena, at = make([]byte, 0, max(256, 2*cap(d.arena), need)), 0
	}
	a, err := appendDecoded(d.arena, s)
	if err != nil {
		return nil, err
	}
	d.arena = a
	return a[at:len(a):len(a)], nil
}
