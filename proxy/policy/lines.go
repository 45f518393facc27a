package policy

import (
	"log/slog"
	"sync/atomic"
)

// PerSecond is how many lines about decisions of one sort are logged a second where nothing else is said; metrics count all of them.
const PerSecond = 10

// Lines bounds lines of a log per second: all of them, and those of one kind to one, so that one caller does not hide the others.
// The zero value is ready; it is safe for concurrent use. Two loops that meet at the turn of a second may write a few more.
type Lines struct {
	second, written, unsaid atomic.Int64
	kinds                   [64]atomic.Int64 // the second in which a line of one of these was written last
}

// Room reports whether a line may be written in the second now, Unix time, and how many were not since the last one.
func (l *Lines) Room(now int64, kind uint32) (unsaid int64, ok bool) {
	return l.room(now, kind, PerSecond)
}

func (l *Lines) room(now int64, kind uint32, most int) (unsaid int64, ok bool) {
	if l.second.Swap(now) != now {
		l.written.Store(0)
	}
	if l.kinds[kind%uint32(len(l.kinds))].Swap(now) == now || l.written.Add(1) > int64(most) {
		l.unsaid.Add(1)
		return 0, false
	}
	return l.unsaid.Swap(0), true
}

// Say writes a line for which there was room. log may be nil.
func Say(log *slog.Logger, message string, unsaid int64, args ...any) {
	if log == nil {
		return
	}
	if unsaid > 0 {
		args = append(args, "not_logged", unsaid)
	}
	log.Warn(message, args...)
}

// Kind is a hash of what makes two lines the same: of one kind there is one a second.
func Kind(port uint16, texts ...string) uint32 {
	h := uint32(port)
	for _, s := range texts {
		for i := range len(s) {
			h = (h ^ uint32(s[i])) * 16777619
		}
		h *= 16777619
	}
	return h
}
