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
	// the loop. What it answers is what the handler's Closed is told. nil refuses none.
	Refuses func(c *Conn) error

	conns map[*Conn]struct{}
	again []ending // in later turns
}

// ending is a connection that is to be reset, and why.
type ending struct {
	c   *Conn
	why error
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

// Review resets the connections that are refused by now, a bounded number in each turn of l. It answers how many those are, and why
// one of them is; nil: there is none.
func (o *Open) Review(l loop.Loop) (n int, why error) {
	if o.Refuses == nil {
		return 0, nil
	}
	busy := len(o.again) > 0
	for c := range o.conns {
		if err := o.Refuses(c); err != nil {
			o.again = append(o.again, ending{c, err})
			n, why = n+1, err
		}
	}
	if !busy {
		o.end(l)
	}
	return n, why
}

func (o *Open) end(l loop.Loop) {
	n := min(len(o.again), perTurn)
	for _, e := range o.again[:n] {
		e.c.refuse(e.why)
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

// refuse resets c, unless it is gone; its handler is told why.
func (c *Conn) refuse(why error) {
	if !c.gone && c.err == nil {
		c.err = why
	}
	c.Reset()
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
