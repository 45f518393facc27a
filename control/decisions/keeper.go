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
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
)

// SaveEvery is how often one service is written at most, maxFile what is read of one, bytes.
const (
	SaveEvery = 30 * time.Second
	maxFile   = 16 << 20
	suffix    = ".json"
)

// Keeper keeps a Memory in a folder, one file for each service. Its methods are for one goroutine at a time.
type Keeper struct {
	Memory *Memory
	Dir    string
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
	for _, f := range files {
		path := filepath.Join(k.Dir, f.Name())
		if !strings.HasSuffix(f.Name(), suffix) {
			os.Remove(path) // half written
			continue
		}
		if err := k.read(path); err != nil {
			failed = append(failed, fmt.Errorf("what was decided: %s: %w: it is forgotten", path, err))
			os.Remove(path)
		}
	}
	k.Memory.mu.Lock()
	defer k.Memory.mu.Unlock()
	k.Memory.expire(now)
	return errors.Join(failed...)
}

func (k *Keeper) read(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxFile {
		return fmt.Errorf("%d bytes are more than one of ours", info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var s Service
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	if s.Name.IsZero() || k.path(s.Name) != path {
		return fmt.Errorf("it is of another service, %s", s.Name)
	}
	k.Memory.restore(&s)
	return nil
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

// Save writes what has changed, none more often than SaveEvery unless all says so, and forgets what has expired. What could not be
// written is tried again.
func (k *Keeper) Save(now time.Time, all bool) error {
	m := k.Memory
	m.mu.Lock()
	m.expire(now)
	var write []Service
	for n, s := range m.of {
		if s.unsaved && (all || now.Sub(s.saved) >= SaveEvery) {
			s.unsaved, s.saved = false, now
			write = append(write, s.list(n, 0))
		}
	}
	gone := m.gone
	m.gone = nil
	m.mu.Unlock()
	var failed []error
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
