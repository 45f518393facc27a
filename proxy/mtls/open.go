package mtls

import (
	"crypto/x509"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/proxy/loop"
)

// Open are the connections of one loop on which a peer has proven who it is, from the end of the handshake until they are
// gone, whoever serves them: so that they can be looked at again when it changes who may talk to whom. It belongs to its loop.
type Open struct {
	// Refuses says why a connection may not be open, nil if it may. It is asked at the end of the handshake and by Review, on
	// the loop. nil refuses none.
	Refuses func(c *Conn) error

	conns map[*Conn]struct{}
	again []*Conn // to be ended in later turns
}

// perTurn is how many connections are ended in one turn of a loop.
const perTurn = 64

// Len answers how many there are.
func (o *Open) Len() int { return len(o.conns) }

// Each calls f for every open connection, in no order. f must not end any.
func (o *Open) Each(f func(c *Conn)) {
	for c := range o.conns {
		f(c)
	}
}

// Review resets the connections that are refused by now, a bounded number in each turn of l. It answers how many those are.
func (o *Open) Review(l loop.Loop) int {
	if o.Refuses == nil {
		return 0
	}
	return o.End(l, func(c *Conn) bool { return o.Refuses(c) != nil })
}

// End resets the connections that which answers true for, as Review does.
func (o *Open) End(l loop.Loop, which func(c *Conn) bool) (n int) {
	busy := len(o.again) > 0
	for c := range o.conns {
		if which(c) {
			o.again = append(o.again, c)
			n++
		}
	}
	if !busy {
		o.end(l)
	}
	return n
}

func (o *Open) end(l loop.Loop) {
	n := min(len(o.again), perTurn)
	for _, c := range o.again[:n] {
		c.Reset() // does nothing to one that is gone
	}
	if o.again = o.again[n:]; len(o.again) == 0 {
		o.again = nil
		return
	}
	l.Post(func() { o.end(l) })
}

// add takes a connection in; it reports why not.
func (o *Open) add(c *Conn) error {
	if o == nil {
		return nil
	}
	if o.Refuses != nil {
		if err := o.Refuses(c); err != nil {
			return err
		}
	}
	if o.conns == nil {
		o.conns = map[*Conn]struct{}{}
	}
	o.conns[c] = struct{}{}
	return nil
}

func (o *Open) remove(c *Conn) {
	if o != nil {
		delete(o.conns, c)
	}
}

// Peer answers who is at the other end and the certificates that it showed, leaf first. Valid after Opened.
func (c *Conn) Peer() (spiffe.ID, []*x509.Certificate) {
	return c.peer, c.tls.ConnectionState().PeerCertificates
}
