package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/tulle-mesh/tulle/capture/ready"
)

// healthFor is how long an answer about the program's health is given again: however many ask, the program is asked seldom.
const healthFor = 500 * time.Millisecond

// health is what the program has said last about itself.
type health struct {
	mu    sync.Mutex
	until time.Time
	err   error
}

// Health asks the program whether it is well, as its readiness is asked for (--ready), and answers why not. It is for who probes from
// outside of the mesh: whatever published ports want to be proven, this goes by the proxy's own port.
func (p *Proxy) Health(ctx context.Context) error {
	var port uint16
	if len(p.ports) > 0 {
		port = p.ports[0].Port
	}
	probe, err := ready.Parse(p.cfg.Bootstrap.Ready, port)
	if err != nil || probe.Port == 0 {
		return err
	}
	h := &p.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Now().After(h.until) {
		h.err = probe.Once(ctx, p.dialProgram)
		h.until = time.Now().Add(healthFor)
	}
	return h.err
}
