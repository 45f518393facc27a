package probe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/tulle-mesh/tulle/proxy/health"
)

// stays is how long a relay through the mesh must stand to be believed.
const stays = 200 * time.Millisecond

// askTCP connects, says what is to be said, and waits until what is to be heard has been, each part behind the one before,
// whatever stands between.
func (p *Probe) askTCP(ctx context.Context) (health.Result, error) {
	for {
		c, kept := p.tcp, p.tcp != nil
		p.tcp = nil
		if c == nil {
			var err error
			if p.cfg.Mesh != nil {
				c, err = p.cfg.Mesh(ctx, true)
			} else if c, err = p.dial(ctx); err == nil && p.cfg.TLS != nil {
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
	deadline, _ := ctx.Deadline()
	if len(p.cfg.Check.Send)+len(p.cfg.Check.Receive) == 0 {
		if p.cfg.Mesh != nil {
			return p.listen(c, deadline)
		}
		return nil
	}
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

// listen finds out whether the proxy in front of a program has come through to it: a relay that has not is reset at once, one
// that has says something, ends in order or stays.
func (p *Probe) listen(c net.Conn, deadline time.Time) error {
	_ = c.SetDeadline(time.Now().Add(min(time.Until(deadline)/2, stays)))
	n, err := c.Read(make([]byte, 1))
	if late, ok := errors.AsType[net.Error](err); n > 0 || err == nil || errors.Is(err, io.EOF) || ok && late.Timeout() {
		return nil
	}
	return err
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
