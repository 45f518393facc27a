package gateway

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/handover"
)

// ticketsEvery is how often the keys of session tickets are looked at; see handover.Tickets.
const ticketsEvery = time.Hour

// startTickets makes what the keys of session tickets come from, or goes on with those of the proxy before this one:
// clients then resume their sessions with its successor.
func (g *Gateway) startTickets() error {
	tickets, err := handover.ParseTickets(g.cfg.Tickets)
	if err != nil {
		return err
	}
	g.tickets, _ = tickets.Renew(time.Now())
	g.hourly = time.AfterFunc(ticketsEvery, g.renewTickets)
	return nil
}

func (g *Gateway) renewTickets() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.hourly.Reset(ticketsEvery)
	tickets, changed := g.tickets.Renew(time.Now())
	if !changed {
		return
	}
	g.tickets = tickets
	for _, l := range g.listeners {
		for _, v := range []*version{l.now.Load(), l.next} {
			if v == nil {
				continue
			}
			for _, c := range v.all {
				g.giveTickets(c)
			}
		}
	}
}

// giveTickets gives a chain the keys that are in force. mu is held.
func (g *Gateway) giveTickets(c *filterChain) {
	if c.tls == nil || c.model.TLS.NoTickets {
		return
	}
	if keys := g.tickets.Keys(c.label); len(keys) > 0 {
		c.tls.Config().SetSessionTicketKeys(keys)
	}
}

// ticketLabel tells the TLS contexts of different chains apart: what is not the same in every way takes no tickets of
// the other.
func ticketLabel(listener string, m *model.ServerTLS) string {
	b, err := json.Marshal(m)
	if err != nil {
		return "" // cannot happen: plain data
	}
	return fmt.Sprintf("%s %x", listener, sha256.Sum256(b))
}
