package mtls

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"

	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/sniff"
)

const (
	headerLen  = 5
	maxPlain   = 16 << 10
	maxRecord  = headerLen + maxPlain + 2048 // TLS 1.2, RFC 5246 section 6.2.3; 1.3 has 256
	deliverAt  = loop.ScratchSize - maxPlain
	plainSpace = loop.ScratchSize
)

// below is the Conn as the handler of the connection below it.
type below Conn

func (b *below) Opened() {
	c := (*Conn)(b)
	if c.client && !c.begun && (!c.stopped() || c.closeLater) {
		c.clock()
		c.begin(nil)
	}
}

// Data takes whole records only: an incomplete one stays with the connection below, which holds it in a buffer
// of its size.
func (b *below) Data(p []byte) int {
	c := (*Conn)(b)
	switch {
	case c.stopped() && !c.closeLater:
		return len(p)
	case !c.begun:
		if n := sniff.HelloBytes(p); n == 0 || c.client {
			return 0 // stays with the connection below: no goroutine waits for the rest
		}
		c.begin(p)
		return len(p)
	case !c.open:
		if !c.wire.feed(p) {
			c.raw.Pause() // shaken resumes
		}
		return len(p)
	case len(c.early) > 0:
		c.openEarly(p)
		return len(p)
	}
	return c.openRecords(p)
}

// EOF without close_notify before it is an attack or a crash.
func (b *below) EOF() {
	c := (*Conn)(b)
	switch {
	case !c.begun:
		c.fail(&HandshakeError{Err: io.ErrUnexpectedEOF})
	case !c.open:
		c.wire.end()
	case c.stopped() || c.eof:
	default:
		c.truncated()
	}
}

func (b *below) Writable() {
	c := (*Conn)(b)
	if c.open && !c.stopped() {
		c.h.Writable()
	}
}

func (b *below) Closed(err error) {
	c := (*Conn)(b)
	if c.gone {
		return
	}
	c.gone = true
	c.among.remove(c)
	c.loop.Disarm(&c.timer)
	c.wire.kill()
	c.pool.Put(c.pend)
	if !c.reading {
		c.pool.Put(c.plain)
	}
	c.pend, c.plain, c.early = nil, nil, nil
	switch {
	case c.err != nil:
		err = c.err
	case c.closing:
		err = nil
	case c.begun && !c.open && err != nil:
		err = &HandshakeError{Err: err}
	}
	c.h.Closed(err)
}

func (c *Conn) truncated() {
	if c.err == nil {
		c.err = io.ErrUnexpectedEOF
		c.raw.Reset()
	}
}

// openEarly opens what arrived with the handshake, and p behind it.
func (c *Conn) openEarly(p []byte) {
	c.early = append(c.early, p...)
	if len(c.early) == 0 || c.paused || c.stopped() {
		return
	}
	n := c.openRecords(c.early)
	c.early = c.early[n:]
	if len(c.early) == 0 {
		c.early = nil
	}
}

// openRecords decrypts the whole records of p, gives the plaintext to the handler, and answers how many bytes
// were opened. It decrypts in place.
func (c *Conn) openRecords(p []byte) int {
	raw := rawInput(c.tls)
	if raw != nil {
		p = p[:wholeRecords(p)]
		*raw = *bytes.NewBuffer(p)
	} else {
		c.wire.records = p // tls.Conn keeps incomplete records itself
	}
	c.reading = true
	err := c.readPlain()
	c.reading = false
	rest := 0
	if raw != nil {
		rest = raw.Len()
		c.releaseRecords()
	} else {
		rest = len(c.wire.records)
		c.wire.records = nil
	}
	c.readDone(err)
	return len(p) - rest
}

// readPlain reads until tls.Conn has nothing more, delivering as it goes. It stops before a record that might
// not fit, so that nothing decrypted stays inside tls.Conn.
func (c *Conn) readPlain() (err error) {
	buf := c.plain
	if cap(buf) < plainSpace {
		buf = append(c.pool.Get(plainSpace), c.plain...)
		c.pool.Put(c.plain)
	}
	c.plain = nil
	raw := rawInput(c.tls)
	for !c.stopped() && !c.paused {
		if len(buf) > deliverAt {
			had := len(buf)
			if buf = c.give(buf); len(buf) == had && !c.paused && !c.stopped() {
				c.err = loop.ErrNotConsumed
				c.raw.Reset()
			}
			continue
		}
		if err != nil || raw != nil && raw.Len() == 0 {
			break
		}
		var n int
		n, err = c.tls.Read(buf[len(buf):cap(buf)])
		c.heard = c.heard || n > 0
		buf = buf[:len(buf)+n]
	}
	if len(buf) > 0 && !c.paused && !c.stopped() {
		buf = c.give(buf)
	}
	c.keep(buf)
	return err
}

// give delivers b and answers what was not consumed, at the beginning of b.
func (c *Conn) give(b []byte) []byte {
	p := b
	for {
		c.swapped = false
		n := c.h.Data(p)
		p = p[n:]
		if len(p) == 0 || !c.swapped || c.paused || c.stopped() {
			break
		}
	}
	if c.swapped && len(p) > 0 {
		c.again()
	}
	return b[:copy(b, p)]
}

// keep holds what was not consumed in a buffer of its size.
func (c *Conn) keep(buf []byte) {
	switch {
	case len(buf) == 0 || c.gone:
		c.pool.Put(buf)
	case cap(buf) > 4*len(buf):
		c.plain = append(c.pool.Get(len(buf)), buf...)
		c.pool.Put(buf)
	default:
		c.plain = buf
	}
}

// readDone acts on how reading ended.
func (c *Conn) readDone(err error) {
	switch err {
	case nil, errWouldBlock:
	case io.EOF:
		c.eof = true
		c.tellEOF()
	default:
		c.readFailed(err)
	}
}

func (c *Conn) readFailed(err error) {
	var remote *net.OpError
	if !c.heard && errors.As(err, &remote) && remote.Op == "remote error" {
		err = &HandshakeError{Err: err} // it could not say so before
	}
	c.fail(err)
}

func (c *Conn) tellEOF() {
	if c.eof && !c.eofTold && !c.paused && !c.stopped() {
		c.eofTold = true
		c.h.EOF()
	}
}

// again has what was kept delivered once more, in this or the next turn.
func (c *Conn) again() {
	if !c.posted {
		if c.redelivery == nil {
			c.redelivery = c.redeliver
		}
		c.posted = c.loop.Post(c.redelivery)
	}
}

func (c *Conn) redeliver() {
	c.posted = false
	if !c.open || c.paused || c.stopped() {
		return
	}
	if len(c.plain) > 0 {
		buf := c.plain
		c.plain = nil
		c.reading = true
		buf = c.give(buf)
		c.reading = false
		c.keep(buf)
	}
	c.catchUp()
	c.tellEOF()
}

// catchUp opens what has arrived before it could be opened.
func (c *Conn) catchUp() {
	c.openEarly(nil)
	if rawInput(c.tls) == nil && !c.paused && !c.stopped() {
		c.openRecords(nil) // tls.Conn has a buffer of its own
	}
	if c.ended && !c.eof && !c.paused && !c.stopped() {
		c.truncated()
	}
}

// releaseRecords takes tls.Conn's buffers away. Nothing decrypted may be left in it.
func (c *Conn) releaseRecords() {
	if raw := rawInput(c.tls); raw != nil {
		*raw = bytes.Buffer{}
		if hand := handshakeInput(c.tls); hand.Len() == 0 {
			*hand = bytes.Buffer{}
		}
	}
}

// wholeRecords answers the length of the whole records at the start of p. A record that is too long counts as
// whole: tls.Conn refuses it by its header.
func wholeRecords(p []byte) (n int) {
	for len(p)-n >= headerLen {
		size := headerLen + int(binary.BigEndian.Uint16(p[n+3:]))
		if size > maxRecord {
			return len(p)
		}
		if len(p)-n < size {
			break
		}
		n += size
	}
	return n
}

var _ loop.Handler = (*below)(nil)
