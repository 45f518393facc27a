package sniff

import "github.com/tulle-mesh/tulle/model"

// Learner is what the proxy beside a server has learned about one of its ports. Only that proxy sees who speaks
// first there. Its zero value knows nothing.
type Learner struct {
	now   model.Protocol
	wrong int // contradictions
}

// Learned answers what the port speaks, or ProtocolUnknown.
func (l *Learner) Learned() model.Protocol { return l.now }

// Mixed reports whether the port has contradicted itself twice; nothing is learned about it any more.
func (l *Learner) Mixed() bool { return l.wrong >= 2 }

// Saw says what one connection turned out to be: LearnedHTTP once the server has answered a valid HTTP response,
// LearnedServerFirst or LearnedClientFirst once the first byte of a relayed connection has passed; anything else
// is ignored, and so is a connection that ended without a byte (do not call it then). It reports whether Learned
// has changed.
func (l *Learner) Saw(p model.Protocol) bool {
	if p < model.LearnedHTTP || p > model.LearnedServerFirst || l.Mixed() || p == l.now {
		return false
	}
	if l.now != model.ProtocolUnknown {
		l.wrong++
	}
	l.now = p
	if l.Mixed() {
		l.now = model.ProtocolUnknown
	}
	return true
}

// Reset forgets everything: the program was started anew.
func (l *Learner) Reset() { *l = Learner{} }
