package etcd

import (
	"context"
	"errors"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tulle-mesh/tulle/control/store"
)

// maxPending is how many revisions may wait for a slow reader.
const maxPending = 4096

type watch struct {
	store  *Store
	events chan []store.Event
	cancel context.CancelFunc

	mu  sync.Mutex
	err error
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, kind string, after int64) (store.Watch, error) {
	if s.ctx.Err() != nil {
		return nil, store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	prefix := root
	if kind != "" {
		prefix += kind + "/"
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	w := &watch{store: s, events: make(chan []store.Event), cancel: cancel}
	// Below 1 etcd would take it for "from now on".
	in := s.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(max(after+1, 1)))
	s.watches.Go(func() {
		defer stop()
		defer cancel()
		defer close(w.events)
		w.run(ctx, in)
	})
	return w, nil
}

// run takes responses as they come, so that etcd's client does not pile them up without a bound, and hands
// them on as fast as the reader wants.
func (w *watch) run(ctx context.Context, in clientv3.WatchChan) {
	var pending [][]store.Event
	for {
		var out chan []store.Event
		var next []store.Event
		if len(pending) > 0 {
			out, next = w.events, pending[0]
		}
		select {
		case out <- next:
			pending = pending[1:]
		case r, ok := <-in:
			if !ok || r.Err() != nil {
				w.end(ctx, r.Err())
				return
			}
			if pending = append(pending, batches(r.Events)...); len(pending) > maxPending {
				w.end(ctx, store.ErrCompacted)
				return
			}
		}
	}
}

// batches cuts a response, which always holds whole revisions, into one slice per revision.
func batches(events []*clientv3.Event) (list [][]store.Event) {
	var last int64
	for _, e := range events {
		key, ok := parse(e.Kv.Key)
		if !ok {
			continue
		}
		ev := store.Event{Object: object(key, e.Kv)}
		if e.Type == clientv3.EventTypeDelete {
			ev = store.Event{Object: store.Object{Key: key, Revision: e.Kv.ModRevision}, Deleted: true}
		}
		if e.Kv.ModRevision != last {
			last = e.Kv.ModRevision
			list = append(list, nil)
		}
		list[len(list)-1] = append(list[len(list)-1], ev)
	}
	return list
}

func (w *watch) end(ctx context.Context, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.store.ctx.Err() != nil:
		w.err = store.ErrClosed
	case ctx.Err() != nil:
	case errors.Is(err, rpctypes.ErrCompacted):
		w.err = store.ErrCompacted
	case err != nil:
		w.err = err
	default:
		w.err = errors.New("etcd ended the watch")
	}
}

func (w *watch) Events() <-chan []store.Event { return w.events }

func (w *watch) Close() { w.cancel() }

func (w *watch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
