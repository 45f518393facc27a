package mem

import (
	"context"
	"sync"

	"github.com/tulle-mesh/tulle/control/store"
)

// watch reads the store's log at its own pace; what it has not read when the log is cut is lost to it.
type watch struct {
	kind   string
	events chan []store.Event
	cancel context.CancelFunc

	mu  sync.Mutex
	err error
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, kind string, after int64) (store.Watch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{kind: kind, events: make(chan []store.Event), cancel: cancel}
	s.watches.Go(func() {
		defer cancel()
		defer close(w.events)
		w.run(ctx, s, after)
	})
	return w, nil
}

// run delivers everything after revision at until something ends the watch.
func (w *watch) run(ctx context.Context, s *Store, at int64) {
	for {
		batch, rev, changed, ok := s.after(at)
		if !ok {
			w.end(store.ErrCompacted)
			return
		}
		if batch == nil {
			select {
			case <-changed:
				continue
			case <-s.done:
				w.end(store.ErrClosed)
			case <-ctx.Done():
			}
			return
		}
		at = rev
		if batch = w.about(batch); len(batch) == 0 {
			continue
		}
		select {
		case w.events <- batch:
		case <-s.done:
			w.end(store.ErrClosed)
			return
		case <-ctx.Done():
			return
		}
	}
}

// after answers the changes of the first revision after at, or nil and what to wait for; ok is false when
// they are forgotten.
func (s *Store) after(at int64) (batch []store.Event, rev int64, changed <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at >= s.rev {
		return nil, at, s.changed, true
	}
	at = max(at, 1) // revision 1 is the empty store
	if at >= s.rev {
		return nil, at, s.changed, true
	}
	i := len(s.log) - int(s.rev-at)
	if i < 0 {
		return nil, at, nil, false
	}
	return s.log[i], at + 1, nil, true
}

func (w *watch) about(batch []store.Event) []store.Event {
	var own []store.Event
	for _, e := range batch {
		if w.kind == "" || e.Kind == w.kind {
			own = append(own, e)
		}
	}
	return own
}

func (w *watch) Events() <-chan []store.Event { return w.events }

func (w *watch) Close() { w.cancel() }

func (w *watch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *watch) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}
