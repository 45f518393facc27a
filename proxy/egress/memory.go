package egress

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of a Memory.
const (
	maxAddresses = 8192
	maxNames     = 16 // of one address
	keepName     = time.Hour
)

// Memory is which names the program was told that an address has. What is heard again counts from then; programs keep
// addresses for longer than DNS says, so a name is kept for an hour.
type Memory struct {
	mu    sync.Mutex
	known map[netip.Addr][]told
}

type told struct {
	name string
	at   time.Duration
}

// Learn takes an answer at a time since some beginning.
func (m *Memory) Learn(name string, addrs []netip.Addr, now time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[netip.Addr][]told{}
	}
	for _, a := range addrs {
		a = a.Unmap()
		if _, ok := m.known[a]; !ok && len(m.known) >= maxAddresses {
			m.forget(now)
		}
		list := slices.DeleteFunc(m.known[a], func(t told) bool { return t.name == name })
		if len(list) == maxNames {
			list = list[1:] // the one that was not heard for the longest time
		}
		m.known[a] = append(list, told{name, now})
	}
}

// forget makes room: what is over goes, and if that is nothing the address that was not heard for the longest time.
func (m *Memory) forget(now time.Duration) {
	var oldest netip.Addr
	since, gone := now, false
	for a, list := range m.known {
		last := list[len(list)-1].at
		if now-last > keepName {
			delete(m.known, a)
			gone = true
		} else if last <= since {
			oldest, since = a, last
		}
	}
	if !gone {
		delete(m.known, oldest)
	}
}

// Names answers the names of an address.
func (m *Memory) Names(a netip.Addr, now time.Duration) (out []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.known[a.Unmap()] {
		if now-t.at <= keepName {
			out = append(out, t.name)
		}
	}
	return out
}
