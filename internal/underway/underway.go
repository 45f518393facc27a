// Package underway runs a bounded number of calls of other services at a time, each in a goroutine of its own, for those who must
// not wait. It promises that nothing runs any more when Close has returned. Safe for concurrent use. Start reading at Group.Go.
package underway

import (
	"context"
	"sync"
)

// Group is calls that are under way. New makes one.
type Group struct {
	room chan struct{}
	ctx  context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// New makes a group of at most so many calls at a time.
func New(most int) *Group {
	g := &Group{room: make(chan struct{}, most)}
	g.ctx, g.stop = context.WithCancel(context.Background())
	return g
}

// Go runs f in another goroutine, with a context that ends with the group; false: there is no room, or the group is closed, and f
// is not run. Who calls free counts no more from then on, though it may go on; calling it again does nothing. It is for f alone.
func (g *Group) Go(f func(ctx context.Context, free func())) bool {
	select {
	case g.room <- struct{}{}:
	default:
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		<-g.room
		return false
	}
	g.running.Go(func() {
		counts := true
		free := func() {
			if counts {
				counts = false
				<-g.room
			}
		}
		defer free()
		f(g.ctx, free)
	})
	return true
}

// Close ends what is under way and waits for it.
func (g *Group) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.stop()
	g.running.Wait()
}
