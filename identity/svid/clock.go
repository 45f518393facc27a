package svid

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the time of the mesh: the control plane's, as far as it is known. Certificates are held against it, so that a
// machine whose own clock is wrong, or is set, neither refuses good certificates nor shows ended ones. The zero value goes by
// the machine's clock until Set. Safe for concurrent use; nil is the machine's clock.
type Clock struct {
	// Wall is the machine's clock; nil: time.Now. Elapsed runs on while the machine sleeps and when its clock is set; nil: the
	// kernel's time since boot.
	Wall    func() time.Time
	Elapsed func() time.Duration

	mu    sync.Mutex
	known bool
	mesh  time.Time     // when it was measured
	at    time.Duration // Elapsed then
}

// Now answers the mesh's time.
func (c *Clock) Now() time.Time {
	if c == nil {
		return time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		return c.wall()
	}
	return c.mesh.Add(c.elapsed() - c.at)
}

// Set says that it is mesh now.
func (c *Clock) Set(mesh time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.mesh, c.at = true, mesh.Round(0), c.elapsed()
}

// Ahead answers by how much the machine's clock is before the mesh's; known is false while nobody has said the time.
func (c *Clock) Ahead() (d time.Duration, known bool) {
	if c == nil {
		return 0, false
	}
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall().Sub(now), c.known
}

func (c *Clock) wall() time.Time {
	if c.Wall != nil {
		return c.Wall()
	}
	return time.Now()
}

func (c *Clock) elapsed() time.Duration {
	if c.Elapsed != nil {
		return c.Elapsed()
	}
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Duration(c.wall().UnixNano()) // every kernel since 2.6.39 has it
	}
	return time.Duration(t.Nano())
}
