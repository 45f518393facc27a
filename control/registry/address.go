package registry

import (
	"hash/fnv"
	"net/netip"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

// ImplicitHold is how long an implicit service outlives its last workload, and how long an address is not
// given to another service after its own has ended.
const ImplicitHold = 24 * time.Hour

// Ranges of virtual addresses.
var (
	Range4 = netip.MustParsePrefix("198.18.0.0/15")
	Range6 = netip.MustParsePrefix("fd74:756c:6c65::/64")
)

// slots is how many services have an address: as many as Range4 holds without its first and last.
const slots = 1<<17 - 2

// record is what is stored of a service beside its object: its address, and what an implicit service without a
// workload still is. It is stored as kind VirtualAddress.
type record struct {
	Slot     uint32              `json:"slot"`               // 1 to slots
	Ended    time.Time           `json:"ended,omitzero"`     // last seen alive; zero while it is
	Ports    []model.ServicePort `json:"ports,omitempty"`    // of an implicit service
	Targets  []Target            `json:"targets,omitempty"`  // of an implicit service
	Selector map[string]string   `json:"selector,omitempty"` // of an implicit service
}

func (r *record) addresses() (v4, v6 netip.Addr) {
	a4, a6 := Range4.Addr().As4(), Range6.Addr().As16()
	a4[1] += byte(r.Slot >> 16)
	a4[2], a4[3] = byte(r.Slot>>8), byte(r.Slot)
	a6[13], a6[14], a6[15] = byte(r.Slot>>16), byte(r.Slot>>8), byte(r.Slot)
	return netip.AddrFrom4(a4), netip.AddrFrom16(a6)
}

// book is which service has which address.
type book struct {
	records map[model.ServiceName]*record
	slots   map[uint32]model.ServiceName
	changed map[model.ServiceName]bool // to be stored or deleted
	fresh   map[model.ServiceName]bool // of changed: have just got their address, which nobody has been told yet
}

func newBook() *book {
	return &book{records: map[model.ServiceName]*record{}, slots: map[uint32]model.ServiceName{}, changed: map[model.ServiceName]bool{},
		fresh: map[model.ServiceName]bool{}}
}

// restore takes over a stored record; of two for one slot the first wins.
func (b *book) restore(name model.ServiceName, r record) {
	if _, taken := b.slots[r.Slot]; taken || r.Slot == 0 || r.Slot > slots {
		b.changed[name] = true // deleted: there is no such record
		return
	}
	b.records[name], b.slots[r.Slot] = &r, name
}

// take answers the record of name, making one when it has none; nil when all addresses are taken. The search
// begins at a place that depends on the name, so that even without what was stored the address is likely the
// same again.
func (b *book) take(name model.ServiceName) *record {
	if r := b.records[name]; r != nil {
		return r
	}
	h := fnv.New32a()
	h.Write([]byte(name.String()))
	start := h.Sum32() % slots
	for i := range uint32(slots) {
		slot := 1 + (start+i)%slots
		if _, taken := b.slots[slot]; !taken {
			r := &record{Slot: slot}
			b.records[name], b.slots[slot], b.changed[name], b.fresh[name] = r, name, true, true
			return r
		}
	}
	return nil
}

// forget gives back what ended long ago.
func (b *book) forget(now time.Time) {
	for name, r := range b.records {
		if !r.Ended.IsZero() && !now.Before(r.Ended.Add(ImplicitHold)) {
			delete(b.records, name)
			delete(b.slots, r.Slot)
			b.changed[name] = true
		}
	}
}

// find answers the service that has address a.
func (b *book) find(a netip.Addr) (model.ServiceName, bool) {
	var slot uint32
	switch raw := a.AsSlice(); {
	case Range4.Contains(a):
		slot = uint32(raw[1]-18)<<16 | uint32(raw[2])<<8 | uint32(raw[3])
	case Range6.Contains(a) && raw[8]|raw[9]|raw[10]|raw[11]|raw[12] == 0:
		slot = uint32(raw[13])<<16 | uint32(raw[14])<<8 | uint32(raw[15])
	}
	name, ok := b.slots[slot]
	return name, ok
}
