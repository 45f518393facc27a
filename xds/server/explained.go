package server

import (
	"context"
	"errors"
	"sync"

	"github.com/tulle-mesh/tulle/model/flight"
	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// Recall is told of the proxies that can be asked what they remember. Called from the goroutines of sessions, concurrently.
type Recall interface {
	// Join is told of a session; ask asks its proxy until left is called. told gets the answers, one call at a time.
	Join(h Hello, ask Ask) (told func(Told), left func())
}

// Ask asks a proxy. It never waits; an error says why it cannot be asked. The answer, if one comes, has the same id.
type Ask func(id uint64, q flight.Question) error

// Told is what a proxy answers.
type Told struct {
	ID   uint64
	JSON []byte // list of flight.Explained, not read yet; at most flight.MaxJSON
	Why  string // why there is none, "" if there is
}

// maxSpoken is how many messages wait for a session's stream.
const maxSpoken = 8

var (
	errDeaf = errors.New("its proxy is too old to be asked: replace it with 'tulle upgrade'")
	errBusy = errors.New("its proxy has not taken earlier questions yet: ask again")
	errLong = errors.New("its proxy has told more than is taken")
)

// speaker sends what a session has to say, in a goroutine of its own: a stream that its peer does not read makes nobody wait.
type speaker struct {
	out  chan *tullepb.ToProxy
	done sync.WaitGroup
}

func speak(ctx context.Context, send func(*tullepb.ToProxy) error) *speaker {
	s := &speaker{out: make(chan *tullepb.ToProxy, maxSpoken)}
	s.done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-s.out:
				if send(m) != nil {
					return // receiving ends too
				}
			}
		}
	})
	return s
}

// ask is the Ask of a session.
func (s *speaker) ask(h Hello) Ask {
	return func(id uint64, q flight.Question) error {
		if !h.Explains {
			return errDeaf
		}
		m := &tullepb.Explain{Id: id, Request: q.ID, Denied: q.Denied, Failed: q.Failed, Last: uint32(q.Last)}
		select {
		case s.out <- &tullepb.ToProxy{What: &tullepb.ToProxy_Explain{Explain: m}}:
			return nil
		default:
			return errBusy
		}
	}
}

// maxWhy bounds what a proxy says about why it does not answer, in bytes.
const maxWhy = 256

func readExplained(m *tullepb.Explained) Told {
	t := Told{ID: m.GetId(), JSON: m.GetJson(), Why: m.GetWhy()}
	t.Why = t.Why[:min(len(t.Why), maxWhy)]
	if len(t.JSON) > flight.MaxJSON {
		t.JSON, t.Why = nil, errLong.Error()
	}
	return t
}
