// Package store is where the control plane keeps what must outlive it: objects under a kind, a namespace and
// a name, each change with a revision that grows over the whole store. It promises that what was acknowledged
// is there after a crash (store/etcd), that several changes go in together or not at all, and that a watch
// sees every change once and in order. It never looks into a value. Every method may be called from any
// goroutine. Implementations: store/mem (tests, simulation) and store/etcd; store/storetest is the contract
// that both are held to. Start reading at Store.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Bounds that every implementation holds.
const (
	MaxValue   = 1 << 20 // bytes of all values of one Apply
	MaxChanges = 100     // changes in one Apply
	MaxPart    = 512     // bytes of a kind, a namespace or a name
)

// Errors; test with errors.Is.
var (
	ErrNotFound  = errors.New("not found")
	ErrConflict  = errors.New("changed by someone else meanwhile: read it again and retry")
	ErrCompacted = errors.New("the revision asked for is no longer kept: list again and watch from there")
	ErrClosed    = errors.New("the store is closed")
	ErrInvalid   = errors.New("invalid key, value or number of changes")
)

// Key names one object. Kind and Name are never empty; Namespace is empty for what belongs to the whole mesh.
// No part holds a slash or a NUL.
type Key struct {
	Kind, Namespace, Name string
}

// String answers "HTTPRoute/default/cart", or "MeshConfig/mesh" without a namespace.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + "/" + k.Name
	}
	return k.Kind + "/" + k.Namespace + "/" + k.Name
}

// Validate reports, as ErrInvalid, a key that no store takes.
func (k Key) Validate() error {
	if k.Kind == "" || k.Name == "" {
		return fmt.Errorf("%w: key %q has no kind or no name", ErrInvalid, k.String())
	}
	for _, part := range [...]string{k.Kind, k.Namespace, k.Name} {
		if len(part) > MaxPart || strings.ContainsAny(part, "/\x00") {
			return fmt.Errorf("%w: key part %.64q is over %d bytes or holds a slash or NUL", ErrInvalid, part, MaxPart)
		}
	}
	return nil
}

// Object is one stored value. Value belongs to the store: do not change it.
type Object struct {
	Key
	Revision int64 // of its last change; ignored by Put
	Created  int64 // of the Put that made it; ignored by Put
	Value    []byte
}

// If is the condition of a change. Its zero value is Any.
type If struct {
	absent   bool
	revision int64
}

// Any makes a change unconditional.
var Any = If{}

// Absent makes a Put succeed only when the object does not exist.
var Absent = If{absent: true}

// At makes a change succeed only when the object's Revision is still n (more than 0).
func At(n int64) If { return If{revision: n} }

// Holds reports whether c holds for an object whose revision is now (0: it does not exist).
func (c If) Holds(now int64) bool {
	switch {
	case c.absent:
		return now == 0
	case c.revision != 0:
		return now == c.revision
	}
	return true
}

// Revision answers what the condition compares with: 0 and true for Absent, n and true for At(n), else false.
func (c If) Revision() (n int64, conditional bool) {
	return c.revision, c.absent || c.revision != 0
}

// Change is one part of an Apply.
type Change struct {
	Key
	Value  []byte // of a Put
	Delete bool   // of an object that exists; otherwise the Apply answers ErrNotFound
	If     If
}

// Event is one change that a watch saw. All events of one Apply have the same Revision.
type Event struct {
	Object  // of a deletion: Key and Revision (that of the deletion) only
	Deleted bool
}

// Watch is a running watch.
type Watch interface {
	// Events delivers changes in the order of their revisions; all changes of one Apply that the watch is
	// about come in one slice. The channel is closed when the watch ends: by Close, by the context, with the
	// store, or because of Err. A reader that lags by more than a bound loses the watch with ErrCompacted.
	Events() <-chan []Event
	// Err says, once Events is closed, why: ErrCompacted, ErrClosed, another failure, or nil after Close or
	// the end of the context.
	Err() error
	// Close ends the watch. It does not wait for the reader.
	Close()
}

// Store is the contract. Every error names the key.
type Store interface {
	// Get answers one object, or ErrNotFound.
	Get(ctx context.Context, key Key) (Object, error)
	// List answers the objects of a kind in one namespace ("" for all), ordered by namespace and name, as of
	// the revision that it also answers: Watch(ctx, kind, revision) continues from exactly there.
	List(ctx context.Context, kind, namespace string) ([]Object, int64, error)
	// Put stores o.Value under o.Key and answers the revision, or ErrConflict.
	Put(ctx context.Context, o Object, cond If) (int64, error)
	// Delete removes an object and answers the revision, or ErrNotFound, or ErrConflict.
	Delete(ctx context.Context, key Key, cond If) (int64, error)
	// Apply makes all changes at one revision, or none of them. No key may occur twice. No changes at all
	// answer the present revision.
	Apply(ctx context.Context, changes []Change) (int64, error)
	// Watch delivers every change of a kind ("" for all kinds) with a revision greater than after.
	Watch(ctx context.Context, kind string, after int64) (Watch, error)
	// Revision answers the present revision of the store, at least 1.
	Revision(ctx context.Context) (int64, error)
	// Close ends the store and every watch. It is idempotent.
	Close() error
}

// Validate reports, as ErrInvalid, changes that no store takes together.
func Validate(changes []Change) error {
	if len(changes) > MaxChanges {
		return fmt.Errorf("%w: %d changes at once, at most %d go in together: split them", ErrInvalid, len(changes), MaxChanges)
	}
	seen, total := make(map[Key]bool, len(changes)), 0
	for _, c := range changes {
		if err := c.Key.Validate(); err != nil {
			return err
		}
		if total += len(c.Value); total > MaxValue {
			return fmt.Errorf("%w: %s: over %d bytes of values at once: split them", ErrInvalid, c.Key, MaxValue)
		}
		if seen[c.Key] {
			return fmt.Errorf("%w: %s is changed twice", ErrInvalid, c.Key)
		}
		seen[c.Key] = true
	}
	return nil
}
