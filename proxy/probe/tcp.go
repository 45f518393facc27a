package probe

import (
	"bytes"
	"context"
	"net"
	"time"

	"github.com/tulle-mesh/tulle/proxy/health"
)

// askTCP connects, says what is to be said, and waits until what is to be heard has been, each part behind the one before,
// whatever stands between.
func (p *Probe) askTCP(ctx context.Context) (health.Result, error) {
	for {
		c, kept := p.tcp, p.tcp != nil
		p.tcp = nil
		if c == nil {
			var err error
			if c, err = p.dial(ctx); err == nil && p.cfg.TLS != nil {
				c, err = p.secure(ctx, c)
			}
			if err != nil {
				return health.Unreachable, err
			}
		}
		if err := p.converse(ctx, c); err != nil {
			c.Close()
			if kept && ctx.Err() == nil {
				continue // the server has ended it meanwhile
			}
			return health.Unreachable, err
		}
		if p.cfg.Check.ReuseConnection && len(p.cfg.Check.Receive) > 0 {
			p.tcp = c
		} else {
			c.Close()
		}
		return health.Passed, nil
	}
}

func (p *Probe) converse(ctx context.Context, c net.Conn) error {
	if len(p.cfg.Check.Send)+len(p.cfg.Check.Receive) == 0 {
		return nil
	}
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write(p.cfg.Check.Send); err != nil {
		return err
	}
	var heard []byte
	piece := make([]byte, 4<<10)
	for wanted := p.cfg.Check.Receive; ; {
		if wanted, heard = match(wanted, heard); len(wanted) == 0 {
			return nil
		}
		n, err := c.Read(piece)
		heard = append(heard, piece[:n]...)
		if n == 0 && err != nil {
			return err
		}
	}
}

// match takes off wanted what has been heard, and off heard what is of no more use.
func match(wanted [][]byte, heard []byte) ([][]byte, []byte) {
	for len(wanted) > 0 {
		w := wanted[0]
		i := bytes.Index(heard, w)
		if i < 0 {
			if most := len(w) - 1; len(heard) > most {
				heard = heard[len(heard)-most:]
			}
			break
		}
		wanted, heard = wanted[1:], heard[i+len(w):]
	}
	return wanted, heard
}
