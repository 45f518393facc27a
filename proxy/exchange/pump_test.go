package exchange

import (
	"testing"

	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/upstream"
)

// giver is a stream that takes everything; perhaps something happens meanwhile.
type giver struct {
	upstream.Stream
	got       int
	meanwhile func()
}

func (g *giver) Data(p []byte, _ bool) int {
	g.got += len(p)
	if g.meanwhile != nil {
		g.meanwhile()
	}
	return len(p)
}
func (g *giver) Trailers(*message.Head) {}

// TestRivalFailsInData: an attempt beside others fails while it is given the body. The others get all of it, and nothing more
// is given to what is over.
func TestRivalFailsInData(t *testing.T) {
	var streams [3]giver
	x := &Exchange{}
	x.try = &x.first
	tries := [3]*try{&x.first, {}, {}}
	for i, one := range tries {
		one.x, one.stream, one.nth = x, &streams[i], i+1
	}
	x.rivals, tries[1].beside = tries[1], tries[2]
	streams[1].meanwhile = func() { // as attemptFailed does it
		x.prefer(tries[1])
		x.try, x.rivals = x.rivals, x.rivals.beside
		x.try.beside = nil
		tries[1].stream = nil
		x.bury(tries[1])
	}
	x.dead = &try{beside: &try{stream: &giver{meanwhile: func() { t.Error("what is over was given something") }}}}
	x.body = []byte("half")
	x.pumpRivals()
	if n := streams[2].got; n != len(x.body) {
		t.Errorf("the other one got %d bytes", n)
	}
	if x.try != &x.first || tries[1].sent != 0 {
		t.Errorf("what is over has taken %d bytes", tries[1].sent)
	}
	if x.feed(x.try); streams[0].got != len(x.body) {
		t.Errorf("the first one got %d bytes", streams[0].got)
	}
}
