package outage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/control/store"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/recovery"
)

// Bounds of what is kept in a store.
const (
	// SaveEvery is how often one destination is written at most, and perSave of how many one Save does.
	SaveEvery = 30 * time.Second
	perSave   = store.MaxChanges
	// Expires is when what nobody has reported on is forgotten: after so many half-lives there is nothing left of it.
	Expires = 14 * recovery.HalfLife
)

// Kind of what is kept.
const Kind = "Recovery"

// Keeper keeps a Memory in a store, so that a control plane that is restarted knows what the one before has learned. Several
// control planes on one store know it from when they start; of what they write about the same destination the last one stays.
// Its methods are for one goroutine at a time.
type Keeper struct {
	Memory *Memory
	Store  store.Store
}

// kept is the stored form. A newer one may say more.
type kept struct {
	Learned  []byte    `json:"learned"` // recovery.Learned
	Reported time.Time `json:"reported"`
	Last     []Outage  `json:"last,omitempty"`
}

// Load takes what was kept, for who starts. What cannot be read is worth nothing and goes, as does what is stale.
func (k *Keeper) Load(ctx context.Context, now time.Time) error {
	all, _, err := k.Store.List(ctx, Kind, "")
	if err != nil {
		return fmt.Errorf("what was learned about failures: %w", err)
	}
	for _, o := range all {
		name, err := model.ParsePortName(o.Name)
		var v kept
		if err == nil {
			err = json.Unmarshal(o.Value, &v)
		}
		var l recovery.Learned
		if err == nil {
			l, err = recovery.DecodeLearned(v.Learned)
		}
		switch {
		case errors.Is(err, recovery.ErrVersion): // a newer control plane's, who may come back
		case err != nil || now.Sub(v.Reported) > Expires || l.Empty():
			if err := k.remove(ctx, o.Key); err != nil {
				return err
			}
		default:
			k.Memory.restore(name, &l, v.Last[max(len(v.Last)-MaxOutages, 0):], v.Reported)
		}
	}
	return nil
}

// Save writes what has changed, of perSave destinations at most, none more often than SaveEvery unless all says so; and takes
// out what is forgotten. more reports whether some would be left with all. What could not be written is tried again.
func (k *Keeper) Save(ctx context.Context, now time.Time, all bool) (more bool, err error) {
	names, gone, more := k.Memory.unsaved(now, all)
	var changes []store.Change
	for _, n := range names {
		c, err := k.change(n)
		if err != nil {
			continue // no store takes such a name, or it is forgotten
		}
		changes = append(changes, c)
	}
	if len(changes) > 0 {
		if _, err := k.Store.Apply(ctx, changes); err != nil {
			k.Memory.unsave(names, gone)
			return true, fmt.Errorf("what was learned about failures: %w", err)
		}
	}
	for i, n := range gone {
		if err := k.remove(ctx, keyOf(n)); err != nil {
			k.Memory.unsave(nil, gone[i:])
			return true, err
		}
	}
	return more, nil
}

func keyOf(n model.PortName) store.Key {
	return store.Key{Kind: Kind, Namespace: n.Service.Namespace, Name: n.String()}
}

func (k *Keeper) change(n model.PortName) (store.Change, error) {
	v, ok := k.Memory.kept(n)
	if !ok {
		return store.Change{}, store.ErrNotFound
	}
	b, err := json.Marshal(v)
	if err != nil {
		return store.Change{}, err
	}
	c := store.Change{Key: keyOf(n), Value: b}
	return c, c.Key.Validate()
}

func (k *Keeper) remove(ctx context.Context, key store.Key) error {
	if key.Validate() != nil {
		return nil
	}
	if _, err := k.Store.Delete(ctx, key, store.Any); err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("what was learned about failures: %w", err)
	}
	return nil
}

// restore adds what was kept of a destination: proxies are told it when they start.
func (m *Memory) restore(name model.PortName, l *recovery.Learned, last []Outage, reported time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.of[name]
	if d == nil {
		d = m.add(name)
	}
	d.learned.Merge(l)
	told := d.learned
	d.told, d.reported, d.last = &told, reported, last
}

// unsaved answers destinations to write and to take out, which count as done; more: there are others.
func (m *Memory) unsaved(now time.Time, all bool) (names, gone []model.PortName, more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, d := range m.of {
		switch {
		case now.Sub(d.reported) > Expires:
			delete(m.of, n)
			m.gone = append(m.gone, n)
		case !d.unsaved || !all && now.Sub(d.saved) < SaveEvery:
		case len(names) == perSave:
			more = true
		default:
			d.unsaved, d.saved = false, now
			names = append(names, n)
		}
	}
	gone, m.gone = m.gone, nil
	if len(gone) > perSave {
		gone, m.gone, more = gone[:perSave:perSave], gone[perSave:], true
	}
	return names, gone, more
}

// unsave says that unsaved has promised too much.
func (m *Memory) unsave(names, gone []model.PortName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range names {
		if d := m.of[n]; d != nil {
			d.unsaved = true
		}
	}
	for _, n := range gone {
		if m.of[n] == nil && len(m.gone) < MaxDestinations {
			m.gone = append(m.gone, n)
		}
	}
}

// kept answers the stored form of a destination.
func (m *Memory) kept(n model.PortName) (kept, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.of[n]
	if d == nil {
		return kept{}, false
	}
	return kept{Learned: d.learned.Append(nil), Reported: d.reported, Last: append([]Outage(nil), d.last...)}, true
}
