package observe

import (
	"slices"
	"sync"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/logformat"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Logs are the access logs of a chain, or of a listener, with compiled formats. Safe for concurrent use; a line is made
// on the loop, without allocating, and written elsewhere.
type Logs struct {
	all       []*compiled
	responses []string // fields of responses that are told
	trailers  []string
	hostname  string
}

// compiled is one access log.
type compiled struct {
	file  *logFile
	ops   []logformat.Op // text
	json  []member
	empty string // in place of an operator without a value
	omit  bool   // JSON members without a value
}

// member is one of a JSON object.
type member struct {
	name    []byte // with quotes and colon
	ops     []logformat.Op
	members []member // not nil: an object
}

func compile(m *model.AccessLog) (c *compiled, err error) {
	c = &compiled{empty: "-", omit: m.OmitEmpty}
	if m.OmitEmpty {
		c.empty = ""
	}
	if m.JSON != nil {
		c.json, err = compileMembers(m.JSON)
		return c, err
	}
	format := m.Format
	if format == "" {
		format = logformat.Default
	}
	c.ops, err = logformat.Parse(format)
	return c, err
}

func compileMembers(fields []model.LogField) ([]member, error) {
	out := make([]member, len(fields))
	for i := range fields {
		f := &fields[i]
		out[i].name = append(appendText(nil, f.Name), ':')
		var err error
		if f.Members != nil {
			out[i].members, err = compileMembers(f.Members)
		} else {
			out[i].ops, err = logformat.Parse(f.Format)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// note adds c and what has to be kept for it.
func (l *Logs) note(c *compiled) {
	l.all = append(l.all, c)
	l.noteOps(c.ops)
	l.noteMembers(c.json)
}

func (l *Logs) noteMembers(all []member) {
	for i := range all {
		l.noteOps(all[i].ops)
		l.noteMembers(all[i].members)
	}
}

func (l *Logs) noteOps(ops []logformat.Op) {
	for i := range ops {
		list := &l.responses
		switch ops[i].Kind {
		case logformat.Resp:
		case logformat.Trailer:
			list = &l.trailers
		default:
			continue
		}
		for _, name := range [...]string{ops[i].Name, ops[i].Other} {
			if name != "" && name[0] != ':' && !slices.Contains(*list, name) {
				*list = append(*list, name)
			}
		}
	}
}

// Keep copies what lines will tell of a response's head, or of its trailers, into dst, whose bytes live in arena; both
// are reused, as message.Head.CloneInto does.
func (l *Logs) Keep(h *message.Head, trailers bool, dst *message.Head, arena []byte) []byte {
	names := l.responses
	if trailers {
		names = l.trailers
	}
	dst.Reset()
	arena = arena[:0]
	if len(names) == 0 {
		return arena
	}
	need := 0
	for i := range h.Fields {
		need += len(h.Fields[i].Name) + len(h.Fields[i].Value)
	}
	if cap(arena) < need {
		arena = make([]byte, 0, need+need/2)
	}
	put := func(b []byte) []byte {
		n := len(arena)
		arena = append(arena, b...)
		return arena[n:len(arena):len(arena)]
	}
	for i := range h.Fields {
		for _, name := range names {
			if message.EqualFold(h.Fields[i].Name, name) {
				dst.Add(put(h.Fields[i].Name), put(h.Fields[i].Value))
				break
			}
		}
	}
	return arena
}

// lines holds buffers in which lines are made.
var lines = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Put writes a line for e to every log.
func (l *Logs) Put(e *Entry) {
	if l == nil || len(l.all) == 0 {
		return
	}
	b := lines.Get().(*[]byte)
	for _, c := range l.all {
		w := writer{b: (*b)[:0], e: e, c: c, hostname: l.hostname}
		if c.json != nil {
			w.object(c.json)
			w.b = append(w.b, '\n')
		} else {
			for i := range c.ops {
				w.text(&c.ops[i])
			}
		}
		c.file.put(w.b)
		*b = w.b
	}
	if cap(*b) <= maxLine {
		lines.Put(b)
	}
}
