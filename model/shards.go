package model

import (
	"fmt"
	"strconv"
	"strings"
)

// LabelShards is the label by which a workload says which shards it owns, where nobody names another.
const LabelShards = "topology.tulle.dev/shards"

// Bounds of shards.
const (
	MaxSlots       = 16384
	MaxShardRanges = 64 // in one label
)

// Shards send a request to the endpoints that own its slot: what is hashed (Route.Hash; XXH64, since that is made for RingHash and
// Maglev already) modulo Slots. Several owners of a slot are balanced by the policy, as if there were no others.
type Shards struct {
	Slots uint32 // 1 to MaxSlots
	Label string // of endpoints: what they own (ParseShards)
	// Any: where nobody owns the slot, or nothing could be hashed, any endpoint takes the request; otherwise none does.
	Any bool
}

// SlotRange is the slots First to Last, both included.
type SlotRange struct{ First, Last uint32 }

// ParseShards reads what an endpoint owns: slots and ranges of them, such as "0-127_256". Commas are as good as underscores, which
// labels may have in Kubernetes too. A slot must be less than slots; what is named twice is owned once.
func ParseShards(text string, slots uint32) ([]SlotRange, error) {
	var out []SlotRange
	for text != "" || out == nil {
		part := text
		if i := strings.IndexAny(text, ",_"); i >= 0 {
			part, text = text[:i], text[i+1:]
			if text == "" {
				return nil, fmt.Errorf("nothing follows the last separator: write slots and ranges such as 0-127_256")
			}
		} else {
			text = ""
		}
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 32)
		last, err2 := strconv.ParseUint(to, 10, 32)
		switch {
		case err1 != nil || err2 != nil:
			return nil, fmt.Errorf("%.40q is no slot and no range: write slots and ranges such as 0-127_256", part)
		case first > last:
			return nil, fmt.Errorf("%s: the first slot is behind the last: write %d-%d", part, last, first)
		case last >= uint64(slots):
			return nil, fmt.Errorf("slot %d: there are %d slots, 0 to %d", last, slots, slots-1)
		case len(out) == MaxShardRanges:
			return nil, fmt.Errorf("has more than %d ranges: let more workloads share them", MaxShardRanges)
		}
		out = append(out, SlotRange{uint32(first), uint32(last)})
	}
	return out, nil
}

// Unowned answers which of slots are in none of owned, as ranges in order.
func Unowned(slots uint32, owned []SlotRange) (out []SlotRange) {
	has := make([]bool, min(slots, MaxSlots))
	for _, r := range owned {
		for s := r.First; s <= r.Last && int(s) < len(has); s++ {
			has[s] = true
		}
	}
	for s, ok := range has {
		n := len(out)
		switch {
		case ok:
		case n > 0 && out[n-1].Last+1 == uint32(s):
			out[n-1].Last++
		default:
			out = append(out, SlotRange{uint32(s), uint32(s)})
		}
	}
	return out
}

// String answers the range as ParseShards reads it.
func (r SlotRange) String() string {
	if r.First == r.Last {
		return strconv.FormatUint(uint64(r.First), 10)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}
