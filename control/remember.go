package control

import (
	"context"
	"path/filepath"
	"time"

	"github.com/tulle-mesh/tulle/control/decisions"
)

// rememberEvery is how often a look is taken whether there is something to write.
const rememberEvery = 5 * time.Second

// remember makes the memory of what proxies have decided, with what was kept on the disk, and keeps it until Close.
func (p *Plane) remember() *decisions.Keeper {
	keep := &decisions.Keeper{Memory: &decisions.Memory{}, Dir: filepath.Join(p.cfg.DataDir, "decisions")}
	if err := keep.Load(time.Now()); err != nil {
		p.log.Warn("not everything that was decided is known", "error", err)
	}
	p.onClose(func() { // after every has ended: what is closed last was begun first
		if err := keep.Save(time.Now(), true); err != nil {
			p.log.Warn("what was decided since is lost", "error", err)
		}
	})
	p.every(rememberEvery, "not kept, it is tried again", func(_ context.Context, now time.Time) error { return keep.Save(now, false) })
	return keep
}
