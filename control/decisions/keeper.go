package decisions

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
)

// SaveEvery is how often services are written at most, maxFile what is read of one, bytes.
const (
	SaveEvery = 30 * time.Second
	maxFile   = 16 << 20
	suffix    = ".json"
)

// Keeper keeps a Memory in a folder: one file for each service, and a journal of what came since. Report is safe for concurrent use, Load is
// called once, before, and Save by one goroutine at a time.
type Keeper struct {
	Memory *Memory
	Dir    string

	saved time.Time // of the last Save that wrote

	mu      sync.Mutex
	journal *os.File // nil: nothing was noted since it was begun
	number  uint64   // of the journal
	size    int      // bytes
	full    bool
	failed  error // of noting, since the last Save
}

// Load takes what was kept. A file that cannot be read is removed and named in the error; what could be read is there all the same.
func (k *Keeper) Load(now time.Time) error {
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return fmt.Errorf("what was decided: %w", err)
	}
	files, err := os.ReadDir(k.Dir)
	if err != nil {
		return fmt.Errorf("what was decided: %w", err)
	}
	var failed []error
	through := map[model.ServiceName]uint64{}
	for _, f := range files {
		path := filepath.Join(k.Dir, f.Name())
		switch {
		case strings.HasSuffix(f.Name(), journalSuffix):
			continue
		case !strings.HasSuffix(f.Name(), suffix):
			os.Remove(path) // half written
			continue
		}
		s, err := k.read(path)
		if err != nil {
			failed = append(failed, fmt.Errorf("what was decided: %s: %w: it is forgotten", path, err))
			os.Remove(path)
			continue
		}
		through[s.Name], k.number = s.Through, max(k.number, s.Through+1)
	}
	k.number = max(k.number, 1)
	failed = append(failed, k.replay(through))
	k.Memory.mu.Lock()
	defer k.Memory.mu.Unlock()
	k.Memory.expire(now)
	return errors.Join(failed...)
}

func (k *Keeper) read(path string) (s Service, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return s, err
	}
	if info.Size() > maxFile {
		return s, fmt.Errorf("%d bytes are more than one of ours", info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	if s.Name.IsZero() || k.path(s.Name) != path {
		return s, fmt.Errorf("it is of another service, %s", s.Name)
	}
	k.Memory.restore(&s)
	return s, nil
}

// restore takes what was kept of a service.
func (m *Memory) restore(from *Service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.add(from.Name, from.Since)
	s.others = from.Others
	for i := range from.Entries {
		e := &from.Entries[i]
		if !e.Valid() {
			continue
		}
		s.reported = max(s.reported, e.Last)
		labels := Mixed
		if e.Labels != Mixed {
			labels = s.known(e.Labels)
		}
		s.put(key{labels, e.Key}, &e.Seen)
	}
	valid := slices.DeleteFunc(from.Unproven, func(u decision.Unproven) bool { return !u.Valid() })
	for i := range valid {
		s.reported = max(s.reported, valid[i].Last)
	}
	s.unproven.AddUnproven(valid, from.UnprovenOthers, MaxUnproven)
	s.unsaved = false
}

// path answers the file of a service. Names of services have no separator of paths in them (model.ServiceName).
func (k *Keeper) path(n model.ServiceName) string { return filepath.Join(k.Dir, n.String()+suffix) }

// Save writes what has changed, no more often than SaveEvery unless all says so, and forgets what has expired. What could not be
// written is tried again.
func (k *Keeper) Save(now time.Time, all bool) error {
	m := k.Memory
	k.mu.Lock()
	if !all && !k.full && now.Sub(k.saved) < SaveEvery {
		k.mu.Unlock()
		return nil
	}
	k.saved = now
	through := k.turn() // what it says is in memory, and nothing comes into memory before mu is free
	failed := []error{k.failed}
	k.failed = nil
	m.mu.Lock()
	m.expire(now)
	var write []Service
	for n, s := range m.of {
		if s.unsaved {
			s.unsaved = false
			one := s.list(n, 0)
			one.Through = through
			write = append(write, one)
		}
	}
	gone := m.gone
	m.gone = nil
	m.mu.Unlock()
	k.mu.Unlock()
	for _, n := range gone {
		if err := os.Remove(k.path(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	for i := range write {
		if err := k.write(&write[i]); err != nil {
			failed = append(failed, err)
			m.mu.Lock()
			if s := m.of[write[i].Name]; s != nil {
				s.unsaved = true
			}
			m.mu.Unlock()
		}
	}
	if errors.Join(failed[1:]...) == nil {
		failed = append(failed, k.drop(through))
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("what was decided: %w", err)
	}
	return nil
}

// write replaces the file of a service: it is the old one or the new one, whatever happens.
func (k *Keeper) write(s *Service) error {
	if strings.ContainsAny(s.Name.String(), "/\x00") {
		return nil // no service is called so
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := k.path(s.Name)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
