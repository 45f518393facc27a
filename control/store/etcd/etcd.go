// Package etcd is the store that lasts: the same code over an etcd inside the process (Embed) or over a cluster
// somewhere else (Dial). It promises that what was acknowledged is on disk, and that the embedded etcd opens
// no port and no socket of any kind: it is reached by function calls only. Safe for concurrent use. Start
// reading at Store.Apply.
package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tulle-mesh/tulle/control/store"
)

// root is where the objects are: /tulle/<kind>/<namespace>/<name>.
const root = "/tulle/"

// callTimeout bounds a call whose context has no deadline.
const callTimeout = 10 * time.Second

// Store is a store in etcd.
type Store struct {
	client *clientv3.Client
	ctx    context.Context // of all watches; ends with Close
	cancel context.CancelFunc
	close  func() error

	closing sync.Once
	watches sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

func newStore(client *clientv3.Client, close func() error) *Store {
	ctx, cancel := context.WithCancel(context.Background())
	return &Store{client: client, ctx: ctx, cancel: cancel, close: close}
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key store.Key) (store.Object, error) {
	if err := key.Validate(); err != nil {
		return store.Object{}, err
	}
	ctx, done := s.call(ctx)
	defer done()
	r, err := s.client.Get(ctx, path(key))
	if err != nil {
		return store.Object{}, s.fail(key.String(), err)
	}
	if len(r.Kvs) == 0 {
		return store.Object{}, fmt.Errorf("%s: %w", key, store.ErrNotFound)
	}
	return object(key, r.Kvs[0]), nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind, namespace string) ([]store.Object, int64, error) {
	ctx, done := s.call(ctx)
	defer done()
	prefix := root + kind + "/"
	if namespace != "" {
		prefix += namespace + "/"
	}
	r, err := s.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, s.fail("list "+kind, err)
	}
	list := make([]store.Object, 0, len(r.Kvs))
	for _, kv := range r.Kvs {
		if key, ok := parse(kv.Key); ok {
			list = append(list, object(key, kv))
		}
	}
	slices.SortFunc(list, func(a, b store.Object) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return list, r.Header.Revision, nil
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, o store.Object, cond store.If) (int64, error) {
	return s.Apply(ctx, []store.Change{{Key: o.Key, Value: o.Value, If: cond}})
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key store.Key, cond store.If) (int64, error) {
	return s.Apply(ctx, []store.Change{{Key: key, Delete: true, If: cond}})
}

// Apply implements store.Store as one transaction of etcd.
func (s *Store) Apply(ctx context.Context, changes []store.Change) (int64, error) {
	if err := store.Validate(changes); err != nil {
		return 0, err
	}
	if len(changes) == 0 {
		return s.Revision(ctx)
	}
	ctx, done := s.call(ctx)
	defer done()
	var conds []clientv3.Cmp
	var then, otherwise []clientv3.Op
	for _, c := range changes {
		p := path(c.Key)
		rev, conditional := c.If.Revision()
		switch {
		case conditional:
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(p), "=", rev))
		case c.Delete:
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(p), ">", 0))
		}
		if c.Delete {
			then = append(then, clientv3.OpDelete(p))
		} else {
			then = append(then, clientv3.OpPut(p, string(c.Value)))
		}
		otherwise = append(otherwise, clientv3.OpGet(p, clientv3.WithKeysOnly()))
	}
	r, err := s.client.Txn(ctx).If(conds...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return 0, s.fail(changes[0].Key.String(), err)
	}
	if !r.Succeeded {
		return 0, refusal(changes, r)
	}
	return r.Header.Revision, nil
}

// refusal says which change did not hold, by what etcd found instead.
func refusal(changes []store.Change, r *clientv3.TxnResponse) error {
	for i, c := range changes {
		var now int64
		if kvs := r.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
			now = kvs[0].ModRevision
		}
		switch {
		case c.Delete && now == 0:
			return fmt.Errorf("%s: %w", c.Key, store.ErrNotFound)
		case !c.If.Holds(now):
			return fmt.Errorf("%s: %w", c.Key, store.ErrConflict)
		}
	}
	return fmt.Errorf("%s: %w", changes[0].Key, store.ErrConflict)
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	ctx, done := s.call(ctx)
	defer done()
	r, err := s.client.Get(ctx, root, clientv3.WithCountOnly())
	if err != nil {
		return 0, s.fail("revision", err)
	}
	return r.Header.Revision, nil
}

// Compact forgets the changes up to and including revision n.
func (s *Store) Compact(ctx context.Context, n int64) error {
	_, err := s.client.Compact(ctx, n)
	return err
}

// Close implements store.Store.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		s.cancel()
		s.watches.Wait()
		err = s.close()
	})
	return err
}

// call bounds one call by callTimeout and by the life of the store.
func (s *Store) call(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// fail translates an error of etcd.
func (s *Store) fail(what string, err error) error {
	switch {
	case s.ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, store.ErrClosed)
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%s: %w", what, store.ErrCompacted)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, rpctypes.ErrTimeout), errors.Is(err, rpctypes.ErrNoLeader):
		return fmt.Errorf("%s: etcd does not answer (no quorum, or not reachable): %w", what, err)
	}
	return fmt.Errorf("%s: etcd: %w", what, err)
}

func path(k store.Key) string { return root + k.Kind + "/" + k.Namespace + "/" + k.Name }

func parse(key []byte) (store.Key, bool) {
	part := strings.Split(strings.TrimPrefix(string(key), root), "/")
	if len(part) != 3 {
		return store.Key{}, false
	}
	return store.Key{Kind: part[0], Namespace: part[1], Name: part[2]}, true
}

func object(k store.Key, kv *mvccpb.KeyValue) store.Object {
	return store.Object{Key: k, Revision: kv.ModRevision, Created: kv.CreateRevision, Value: kv.Value}
}
