package decisions

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/decision"
)

// What was reported since services were written is in a journal, a file of lines, so that a control plane that is killed knows it when
// it is started again. Journals are numbered; the file of a service says up to which one it has what they say.

// maxJournal is how much a journal takes, in bytes: then services are written earlier, and what comes until then is in memory alone.
const (
	maxJournal    = 16 << 20
	journalSuffix = ".journal"
)

// noted is one line.
type noted struct {
	Name   model.ServiceName `json:"name"`
	Labels string            `json:"labels,omitempty"`
	At     int64             `json:"at"` // milliseconds of Unix time
	Report decision.Report   `json:"report"`
}

// Report takes what the proxy of a workload has seen, and notes it. Safe for concurrent use. That it cannot be noted is told by the next
// Save.
func (k *Keeper) Report(name model.ServiceName, labels []model.Label, r decision.Report, now time.Time) {
	if r.Empty() {
		return
	}
	line, err := json.Marshal(noted{name, Labels(labels), now.UnixMilli(), r}) // before Memory takes it, and bounds its times
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Memory.Report(name, labels, r, now)
	switch {
	case err == nil && k.size+len(line) < maxJournal:
		err = k.note(append(line, '\n'))
	case err == nil:
		k.full = true
	}
	if err != nil && k.failed == nil {
		k.failed = err
	}
}

func (k *Keeper) note(line []byte) error {
	if k.journal == nil {
		f, err := os.OpenFile(k.journalPath(k.number), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		k.journal = f
	}
	k.size += len(line)
	_, err := k.journal.Write(line)
	return err
}

func (k *Keeper) journalPath(n uint64) string {
	return filepath.Join(k.Dir, strconv.FormatUint(n, 10)+journalSuffix)
}

// turn begins another journal, and answers the number of the last one that is not written any more. The caller holds mu.
func (k *Keeper) turn() uint64 {
	if k.journal != nil {
		if err := k.journal.Close(); err != nil && k.failed == nil {
			k.failed = err
		}
	}
	k.journal, k.size, k.full = nil, 0, false
	k.number++
	return k.number - 1
}

// journals answers the numbers of those in the folder, in order.
func (k *Keeper) journals() (list []uint64) {
	paths, _ := filepath.Glob(filepath.Join(k.Dir, "*"+journalSuffix)) // the pattern is good
	for _, path := range paths {
		if n, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(path), journalSuffix), 10, 64); err == nil {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}

// drop removes the journals up to a number: services have what they say.
func (k *Keeper) drop(through uint64) error {
	for _, n := range k.journals() {
		if n > through {
			break
		}
		if err := os.Remove(k.journalPath(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// replay takes what is in the journals and not in the services' files.
func (k *Keeper) replay(through map[model.ServiceName]uint64) error {
	var failed []error
	for _, n := range k.journals() {
		k.number = max(k.number, n+1)
		text, err := os.ReadFile(k.journalPath(n))
		for line := range bytes.Lines(text) {
			var one noted
			if err != nil || !bytes.HasSuffix(line, []byte("\n")) { // the last line, of one that was killed
				break
			}
			if err = json.Unmarshal(line, &one); err != nil || one.Name.IsZero() {
				continue
			}
			if n > through[one.Name] {
				k.Memory.Report(one.Name, ParseLabels(one.Labels), valid(one.Report), time.UnixMilli(one.At))
			}
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("what was decided: %s: %w: some of it is forgotten", k.journalPath(n), err))
		}
	}
	return errors.Join(failed...)
}

// valid leaves out what does not keep its bounds.
func valid(r decision.Report) decision.Report {
	r.Of = slices.DeleteFunc(r.Of, func(s decision.Seen) bool { return !s.Valid() })
	r.Unproven = slices.DeleteFunc(r.Unproven, func(u decision.Unproven) bool { return !u.Valid() })
	return r
}
