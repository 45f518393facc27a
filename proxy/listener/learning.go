package listener

import (
	"sync"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/sniff"
)

// Learning is what this proxy has learned about its workload's ports. Safe for concurrent use.
type Learning struct {
	// Changed is told when a port's protocol is learned or doubted. It is called with no lock held, from a loop,
	// and must not block. May be nil.
	Changed func(port uint16, p model.Protocol)

	mu    sync.Mutex
	ports map[uint16]*sniff.Learner
}

// Saw says what one connection to a port turned out to be; see sniff.Learner.Saw. LearnedHTTP is to be said once
// the program has answered a valid response.
func (l *Learning) Saw(port uint16, p model.Protocol) {
	l.mu.Lock()
	if l.ports == nil {
		l.ports = map[uint16]*sniff.Learner{}
	}
	k := l.ports[port]
	if k == nil {
		k = &sniff.Learner{}
		l.ports[port] = k
	}
	changed := k.Saw(p)
	now := k.Learned()
	l.mu.Unlock()
	if changed && l.Changed != nil {
		l.Changed(port, now)
	}
}

// Learned answers what a port speaks, or ProtocolUnknown.
func (l *Learning) Learned(port uint16) model.Protocol {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.ports[port]; k != nil {
		return k.Learned()
	}
	return model.ProtocolUnknown
}

// Forget drops everything: the program was started anew.
func (l *Learning) Forget() {
	l.mu.Lock()
	l.ports = nil
	l.mu.Unlock()
}
