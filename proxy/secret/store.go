package secret

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"weak"

	"github.com/tulle-mesh/tulle/model"
)

// Config of a Store. Everything is optional.
type Config struct {
	Logger *slog.Logger  // nil: nothing is logged
	Every  time.Duration // how often files are looked at; 0: 1 s
	// Want is called when a secret is asked for by a name that is not known: subscribe to it. Called without a lock, from
	// the goroutine that asked, once a name.
	Want func(name string)
	// Changed is called after secrets have changed, or have come for the first time. Called without a lock.
	Changed func()
}

// Store holds the secrets of a process.
type Store struct {
	cfg  Config
	stop chan struct{}
	done chan struct{}

	mu     sync.Mutex
	named  map[string]*Slot
	placed []weak.Pointer[Slot] // in files; gone with the last context that holds them
}

// New makes a Store and starts its goroutine, which Close ends.
func New(cfg Config) *Store {
	if cfg.Every <= 0 {
		cfg.Every = time.Second
	}
	s := &Store{cfg: cfg, stop: make(chan struct{}), done: make(chan struct{}), named: map[string]*Slot{}}
	go s.watch()
	return s
}

// Close stops looking at files. Slots keep what they have.
func (s *Store) Close() {
	close(s.stop)
	<-s.done
}

// Slot answers where the material of ref is. In place: it is parsed now, and an error says what is wrong with it. By
// name: the slot is empty until Update brings the secret. The zero ref is answered with nil.
func (s *Store) Slot(ref model.SecretRef) (*Slot, error) {
	switch {
	case ref.Inline != nil:
		return s.place(ref.Inline)
	case ref.SDS == "":
		return nil, nil
	}
	s.mu.Lock()
	slot, known := s.named[ref.SDS]
	if !known {
		slot = &Slot{source: model.Secret{Name: ref.SDS}}
		s.named[ref.SDS] = slot
	}
	s.mu.Unlock()
	if !known && s.cfg.Want != nil {
		s.cfg.Want(ref.SDS)
	}
	return slot, nil
}

func (s *Store) place(m *model.Secret) (*Slot, error) {
	slot := &Slot{source: *m}
	slot.files = slot.look()
	now, err := Parse(m)
	if err != nil {
		return nil, err
	}
	slot.now.Store(now)
	if len(slot.files) > 0 {
		s.mu.Lock()
		s.placed = append(s.placed, weak.Make(slot))
		s.mu.Unlock()
	}
	return slot, nil
}

// Update takes secrets from SDS, or static ones of a bootstrap file. One that is wrong leaves what was in force before
// and is part of the error; the others are taken.
func (s *Store) Update(secrets []model.Secret) error {
	var wrong []error
	changed := false
	for i := range secrets {
		m := &secrets[i]
		now, err := Parse(m)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		changed = true
		s.mu.Lock()
		slot := s.named[m.Name]
		if slot == nil {
			slot = &Slot{}
			s.named[m.Name] = slot
		}
		slot.source, slot.broken = *m, false
		slot.files = slot.look()
		slot.now.Store(now)
		s.mu.Unlock()
	}
	if changed && s.cfg.Changed != nil {
		s.cfg.Changed()
	}
	return errors.Join(wrong...)
}

// Remove forgets names: a secret that is asked for later is awaited anew. Contexts that use one keep what they have.
func (s *Store) Remove(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		delete(s.named, n)
	}
}

// Check looks at the files now, as the Store itself does regularly.
func (s *Store) Check() {
	s.mu.Lock()
	var slots []*Slot
	s.placed = slices.DeleteFunc(s.placed, func(p weak.Pointer[Slot]) bool {
		slot := p.Value()
		if slot != nil {
			slots = append(slots, slot)
		}
		return slot == nil
	})
	for _, slot := range s.named {
		if len(slot.files) > 0 {
			slots = append(slots, slot)
		}
	}
	changed := false
	for _, slot := range slots {
		changed = s.reload(slot) || changed
	}
	s.mu.Unlock()
	if changed && s.cfg.Changed != nil {
		s.cfg.Changed()
	}
}

// reload reads a slot's files if they have changed, and reports whether its material did.
func (s *Store) reload(slot *Slot) bool {
	files := slot.look()
	if slices.Equal(files, slot.files) {
		return false
	}
	now, err := Parse(&slot.source)
	slot.files = files // a file that changes after this look is read again at the next
	if err != nil {
		if !slot.broken && s.cfg.Logger != nil {
			s.cfg.Logger.Warn("changed secret files are wrong; what was read before stays in force", "error", err)
		}
		slot.broken = true
		return false
	}
	slot.broken = false
	slot.now.Store(now)
	return true
}

func (s *Store) watch() {
	defer close(s.done)
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.Check()
		case <-s.stop:
			return
		}
	}
}

// stamp tells one state of a file from another: a rename over it, a link that was turned and a write change it.
type stamp struct {
	ino            uint64
	size           int64
	written, moved syscall.Timespec
}

// look answers the stamps of the slot's files; one that cannot be looked at has a zero stamp.
func (slot *Slot) look() (files []stamp) {
	for _, m := range [...]model.Material{slot.source.Certificate, slot.source.Key, slot.source.Roots, slot.source.CRL} {
		if m.File == "" {
			continue
		}
		var f stamp
		if info, err := os.Stat(m.File); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				f = stamp{st.Ino, st.Size, st.Mtim, st.Ctim}
			}
		}
		files = append(files, f)
	}
	return files
}
