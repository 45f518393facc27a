package engine

//lint:file-ignore SA1019 golang.org/x/net/http2 is the second implementation that ours is held against (DESIGN section 9)

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tulle-mesh/tulle/proxy/loop"
)

// peer2 is one end of an HTTP/2 connection, built on another implementation's frames. It holds the other end to flow
// control in both directions: what it sends is within the windows that it was given, and what it gets has to be within
// those that it gave.
type peer2 struct {
	rnd    *rand.Rand
	c      loop.Conn
	server bool
	owner  owner2

	in      bytes.Reader
	f       *http2.Framer
	out     bytes.Buffer
	enc     *hpack.Encoder
	dec     *hpack.Decoder
	block   bytes.Buffer
	fields  map[string]string
	started bool

	streams  map[uint32]*stream2
	window   int64 // of the connection, ours to use
	initial  int64 // of new streams, ours to use
	most     uint32
	given    int64 // of the connection: what the other end may still send
	ours     int64 // of new streams, theirs to use
	owed     int64 // taken and not yet given back, of the connection
	credit   loop.Timer
	goaway   bool // heard
	last     uint32
	finished bool
	highest  uint32 // stream that the other end has opened
	numbers  uint32 // of the streams that we have opened
	connects bool   // the other end takes extended CONNECT
	promised int64  // the connection's window, ours to use, when nothing has been sent: it never grows above
	frames   int    // that have come
}

// stream2 is one stream.
type stream2 struct {
	id       uint32
	window   int64 // ours to use
	given    int64
	owed     int64
	queue    []byte // to be sent
	end      bool   // after queue
	trailers []hpack.HeaderField
	ended    bool // we have
	theirs   bool // they have
	value    any
}

// owner2 is told what arrives.
type owner2 interface {
	head2(s *stream2, fields map[string]string, end bool) error
	piece2(s *stream2, p []byte, end bool) error
	reset2(s *stream2, code http2.ErrCode)
	settled2()
	bye2(last uint32)
}

const ownWindow = 1 << 20

// newPeer2 makes an end of a connection that stands; streams give the other end a window of ours bytes.
func newPeer2(rnd *rand.Rand, c loop.Conn, server bool, o owner2) *peer2 {
	p := &peer2{rnd: rnd, c: c, server: server, owner: o, streams: map[uint32]*stream2{}, window: 65535, initial: 65535, most: 100, given: 65535, promised: 65535}
	p.ours = []int64{1000, 5000, 65535, 1 << 20}[rnd.IntN(4)]
	p.f = http2.NewFramer(&p.out, &p.in)
	p.f.SetMaxReadFrameSize(1 << 24)
	p.enc = hpack.NewEncoder(&p.block)
	p.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) { p.fields[f.Name] = f.Value })
	p.credit.Expired = p.giveBack
	if !server {
		p.out.WriteString(http2.ClientPreface)
	}
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: uint32(p.ours)}}
	if server {
		settings = append(settings, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
		settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(1 + rnd.IntN(100))})
	} else {
		settings = append(settings, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	}
	_ = p.f.WriteSettings(settings...) // a buffer takes all
	p.given += ownWindow
	_ = p.f.WriteWindowUpdate(0, ownWindow)
	p.flush()
	return p
}

func (p *peer2) flush() {
	p.c.Write(p.out.Bytes())
	p.out.Reset()
}

// feed takes what has arrived and answers how much of it was whole frames.
func (p *peer2) feed(b []byte) (used int, err error) {
	if p.server && !p.started {
		if len(b) < len(http2.ClientPreface) {
			return 0, nil
		}
		if string(b[:len(http2.ClientPreface)]) != http2.ClientPreface {
			return 0, fmt.Errorf("no preface: %q", b[:len(http2.ClientPreface)])
		}
		used = len(http2.ClientPreface)
	}
	p.started = true
	for {
		rest := b[used:]
		if len(rest) < 9 {
			break
		}
		n := 9 + int(binary.BigEndian.Uint32(rest)>>8)
		if len(rest) < n {
			break
		}
		p.in.Reset(rest[:n])
		f, err := p.f.ReadFrame()
		if err == io.EOF || err != nil {
			return used, fmt.Errorf("frame: %w", err)
		}
		used += n
		if err := p.frame(f); err != nil {
			return used, err
		}
	}
	p.flush()
	return used, nil
}

func (p *peer2) frame(f http2.Frame) error {
	p.frames++
	id := f.Header().StreamID
	s := p.streams[id]
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return p.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return p.f.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if id == 0 {
			p.window += int64(f.Increment)
			if p.frames == 2 { // behind SETTINGS: the window is larger than every connection's is at first
				p.promised += int64(f.Increment)
			}
			if p.window > p.promised {
				return fmt.Errorf("a window of %d bytes was given, %d more than was taken", p.promised, p.window-p.promised)
			}
			for _, s := range p.sorted() {
				p.send(s)
			}
		} else if s != nil {
			if s.window += int64(f.Increment); s.window > p.initial {
				return fmt.Errorf("stream %d: a window of %d bytes was given, %d more than was taken", id, p.initial, s.window-p.initial)
			}
			p.send(s)
		}
	case *http2.HeadersFrame:
		return p.head(id, s, f)
	case *http2.ContinuationFrame:
		return fmt.Errorf("CONTINUATION, and no head here is that large")
	case *http2.DataFrame:
		return p.data(id, s, f)
	case *http2.RSTStreamFrame:
		if s != nil {
			delete(p.streams, id)
			p.owner.reset2(s, f.ErrCode)
		}
	case *http2.GoAwayFrame:
		if f.ErrCode != http2.ErrCodeNo {
			return fmt.Errorf("GOAWAY %s: %s", f.ErrCode, f.DebugData())
		}
		p.goaway, p.last = true, f.LastStreamID
		p.owner.bye2(f.LastStreamID)
	}
	return nil
}

func (p *peer2) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		switch s.ID {
		case http2.SettingInitialWindowSize:
			for _, st := range p.streams {
				st.window += int64(s.Val) - p.initial
			}
			p.initial = int64(s.Val)
		case http2.SettingMaxConcurrentStreams:
			p.most = s.Val
		case http2.SettingEnableConnectProtocol:
			p.connects = s.Val == 1
		case http2.SettingHeaderTableSize:
			p.enc.SetMaxDynamicTableSizeLimit(s.Val)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.f.WriteSettingsAck(); err != nil {
		return err
	}
	p.owner.settled2()
	for _, s := range p.sorted() {
		p.send(s)
	}
	return nil
}

func (p *peer2) head(id uint32, s *stream2, f *http2.HeadersFrame) error {
	p.fields = map[string]string{}
	if _, err := p.dec.Write(f.HeaderBlockFragment()); err != nil {
		return err
	}
	if err := p.dec.Close(); err != nil {
		return err
	}
	if s == nil {
		if !p.server || id <= p.highest || p.goaway2(id) {
			return nil // a stream that was broken off, or refused
		}
		p.highest = id
		s = p.open(id)
	}
	if s.theirs {
		return fmt.Errorf("stream %d: a head behind its end", id)
	}
	s.theirs = f.StreamEnded()
	return p.owner.head2(s, p.fields, f.StreamEnded())
}

// goaway2 reports whether we have said goodbye to streams like this one.
func (p *peer2) goaway2(id uint32) bool { return p.finished && id > p.last }

// number answers the number of our next stream.
func (p *peer2) number() uint32 {
	p.numbers += 2
	return p.numbers - 1
}

func (p *peer2) open(id uint32) *stream2 {
	s := &stream2{id: id, window: p.initial, given: p.ours}
	p.streams[id] = s
	return s
}

func (p *peer2) data(id uint32, s *stream2, f *http2.DataFrame) error {
	n := int64(f.Length)
	if p.given -= n; p.given < 0 {
		return fmt.Errorf("%d bytes over the connection's window", -p.given)
	}
	p.owed += n
	p.later()
	if s == nil {
		return nil // of a stream that was broken off
	}
	if s.given -= n; s.given < 0 {
		return fmt.Errorf("stream %d: %d bytes over its window", id, -s.given)
	}
	if s.theirs {
		return fmt.Errorf("stream %d: bytes behind its end", id)
	}
	s.owed += n
	s.theirs = f.StreamEnded()
	return p.owner.piece2(s, f.Data(), f.StreamEnded())
}

// later gives windows back some time from now: a slow reader.
func (p *peer2) later() {
	if !p.credit.Armed() {
		p.c.Loop().Arm(&p.credit, time.Duration(p.rnd.Int64N(int64(30*time.Millisecond))))
	}
}

func (p *peer2) giveBack() {
	if p.owed > 0 {
		_ = p.f.WriteWindowUpdate(0, uint32(p.owed))
		p.given += p.owed
		p.owed = 0
	}
	for _, s := range p.sorted() {
		if s.owed > 0 && !s.theirs {
			_ = p.f.WriteWindowUpdate(s.id, uint32(s.owed))
			s.given += s.owed
			s.owed = 0
		}
	}
	p.flush()
}

// sorted answers the streams in the order of their numbers: a run has to be the same every time.
func (p *peer2) sorted() []*stream2 {
	var out []*stream2
	for id, n := uint32(0), len(p.streams); n > 0; id++ {
		if s := p.streams[id]; s != nil {
			out = append(out, s)
			n--
		}
	}
	return out
}

// writeHead sends a head; fields are names and values in turn.
func (p *peer2) writeHead(s *stream2, end bool, fields ...string) {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a buffer takes all
	}
	_ = p.f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: p.block.Bytes(), EndHeaders: true, EndStream: end})
	s.ended = s.ended || end
	p.done(s)
}

// write queues body bytes.
func (p *peer2) write(s *stream2, b []byte, end bool, trailers ...hpack.HeaderField) {
	s.queue = append(s.queue, b...)
	s.end, s.trailers = end, trailers
	p.send(s)
}

// send sends what the windows permit.
func (p *peer2) send(s *stream2) {
	if s.ended {
		return
	}
	for len(s.queue) > 0 {
		n := min(int64(len(s.queue)), s.window, p.window, int64(1+p.rnd.IntN(16384)))
		if n <= 0 {
			return
		}
		b := s.queue[:n]
		s.queue = s.queue[n:]
		s.window -= n
		p.window -= n
		s.ended = s.end && len(s.queue) == 0 && s.trailers == nil
		_ = p.f.WriteData(s.id, s.ended, b)
	}
	switch {
	case !s.end || s.ended:
	case s.trailers != nil:
		var f []string
		for _, t := range s.trailers {
			f = append(f, t.Name, t.Value)
		}
		p.writeHead(s, true, f...)
		return
	default:
		s.ended = true
		_ = p.f.WriteData(s.id, true, nil)
	}
	p.done(s)
}

// done forgets a stream that both ends have ended.
func (p *peer2) done(s *stream2) {
	if s.ended && s.theirs {
		delete(p.streams, s.id)
	}
}

// reset breaks a stream off.
func (p *peer2) reset(s *stream2, code http2.ErrCode) {
	if p.streams[s.id] == s {
		delete(p.streams, s.id)
		_ = p.f.WriteRSTStream(s.id, code)
	}
}

// bye says goodbye: streams above last are not looked at.
func (p *peer2) bye(last uint32) {
	p.finished, p.last = true, last
	_ = p.f.WriteGoAway(last, http2.ErrCodeNo, nil)
	p.flush()
}
