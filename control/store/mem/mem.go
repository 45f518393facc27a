// Package mem is a store in memory: for tests, for the simulator, and as the plain statement of what a store
// does. It keeps nothing across a restart. Safe for concurrent use. Start reading at Store.Apply.
package mem

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/tulle-mesh/tulle/control/store"
)

// DefaultHistory is how many revisions a store remembers for its watches.
const DefaultHistory = 4096

// Store is a store in memory.
type Store struct {
	mu      sync.Mutex
	objects map[store.Key]store.Object
	rev     int64
	log     [][]store.Event // one element per revision, the last is rev
	keep    int
	changed chan struct{} // closed and replaced at every revision
	done    chan struct{} // closed by Close
	closed  bool
	watches sync.WaitGroup
}

// New makes an empty store that remembers keep revisions (0: DefaultHistory).
func New(keep int) *Store {
	if keep <= 0 {
		keep = DefaultHistory
	}
	return &Store{objects: map[store.Key]store.Object{}, rev: 1, keep: keep, changed: make(chan struct{}), done: make(chan struct{})}
}

var _ store.Store = (*Store)(nil)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key store.Key) (store.Object, error) {
	if err := key.Validate(); err != nil {
		return store.Object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return store.Object{}, err
	}
	o, ok := s.objects[key]
	if !ok {
		return store.Object{}, fmt.Errorf("%s: %w", key, store.ErrNotFound)
	}
	return o, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind, namespace string) ([]store.Object, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, 0, err
	}
	var list []store.Object
	for k, o := range s.objects {
		if k.Kind == kind && (namespace == "" || k.Namespace == namespace) {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b store.Object) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return list, s.rev, nil
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, o store.Object, cond store.If) (int64, error) {
	return s.Apply(ctx, []store.Change{{Key: o.Key, Value: o.Value, If: cond}})
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key store.Key, cond store.If) (int64, error) {
	return s.Apply(ctx, []store.Change{{Key: key, Delete: true, If: cond}})
}

// Apply implements store.Store.
func (s *Store) Apply(ctx context.Context, changes []store.Change) (int64, error) {
	if err := store.Validate(changes); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	for _, c := range changes {
		now := s.objects[c.Key].Revision
		switch {
		case c.Delete && now == 0:
			return 0, fmt.Errorf("%s: %w", c.Key, store.ErrNotFound)
		case !c.If.Holds(now):
			return 0, fmt.Errorf("%s: %w", c.Key, store.ErrConflict)
		}
	}
	if len(changes) == 0 {
		return s.rev, nil
	}
	s.rev++
	batch := make([]store.Event, 0, len(changes))
	for _, c := range changes {
		batch = append(batch, s.change(c))
	}
	s.log = append(s.log, batch)
	if len(s.log) > s.keep {
		s.log = slices.Delete(s.log, 0, len(s.log)-s.keep)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return s.rev, nil
}

// change carries out c at revision s.rev.
func (s *Store) change(c store.Change) store.Event {
	if c.Delete {
		delete(s.objects, c.Key)
		return store.Event{Object: store.Object{Key: c.Key, Revision: s.rev}, Deleted: true}
	}
	o := store.Object{Key: c.Key, Revision: s.rev, Created: s.rev, Value: bytes.Clone(c.Value)}
	if old, ok := s.objects[c.Key]; ok {
		o.Created = old.Created
	}
	s.objects[c.Key] = o
	return store.Event{Object: o}
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev, s.usable(ctx)
}

// Compact forgets the changes up to and including revision n: a watch from before it gets ErrCompacted.
func (s *Store) Compact(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := s.rev - int64(len(s.log)) // the last revision that is forgotten
	if drop := min(n-oldest, int64(len(s.log))); drop > 0 {
		s.log = slices.Delete(s.log, 0, int(drop))
	}
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	s.mu.Unlock()
	s.watches.Wait()
	return nil
}

func (s *Store) usable(ctx context.Context) error {
	if s.closed {
		return store.ErrClosed
	}
	return ctx.Err()
}
