package delta

import (
	"slices"
	"strconv"
	"strings"
)

// Limits of one response.
const (
	maxResources = 500
	maxBytes     = 1 << 20
)

// Server is the answering side of one stream. At most one response per type is on its way: what changes
// meanwhile is gathered and goes with the next one, in its newest state.
type Server struct {
	types map[string]*served
	order []string
	nonce uint64
}

// served is what a stream gets of one type.
type served struct {
	names    set
	wildcard bool
	sent     map[string]string // version that the client has or refused; "" is "does not exist"
	dirty    set               // to be looked at again
	nonce    string            // of the response on its way, "" for none
	carried  []string          // names in that response
	refused  map[string]string // name: why, until a newer version is accepted
}

// NewServer makes the state of a new stream.
func NewServer() *Server { return &Server{types: map[string]*served{}} }

// Result is what a request meant.
type Result struct {
	Subscribe, Unsubscribe []string // newly, sorted
	Wildcard               bool     // newly asked for everything
	Acked                  bool     // it acknowledged the response on its way
	Nack                   string   // why it refused it, "" when it did not
	Unknown                bool     // a nonce that is not on its way: ignored
}

// Request takes one message of the client.
func (s *Server) Request(r *Request) Result {
	t := s.types[r.GetTypeUrl()]
	fresh := t == nil
	if fresh {
		t = &served{names: set{}, sent: map[string]string{}, dirty: set{}, refused: map[string]string{}}
		s.types[r.GetTypeUrl()] = t
		s.order = append(s.order, r.GetTypeUrl())
		slices.Sort(s.order)
		for n, v := range r.GetInitialResourceVersions() {
			t.sent[n] = v
		}
	}
	var res Result
	for _, n := range r.GetResourceNamesSubscribe() {
		t.subscribe(n, &res)
	}
	if fresh && len(r.GetResourceNamesSubscribe())+len(r.GetResourceNamesUnsubscribe()) == 0 && r.GetResponseNonce() == "" {
		t.subscribe(Wildcard, &res) // the older way of asking for everything
	}
	for _, n := range r.GetResourceNamesUnsubscribe() {
		t.unsubscribe(n, &res)
	}
	if fresh && !t.wildcard {
		for n := range t.sent { // held but not asked for any more
			if !t.names.has(n) {
				delete(t.sent, n)
			}
		}
	}
	t.answer(r, &res)
	slices.Sort(res.Subscribe)
	slices.Sort(res.Unsubscribe)
	return res
}

func (t *served) subscribe(n string, res *Result) {
	if n == Wildcard {
		res.Wildcard = !t.wildcard
		t.wildcard = true
		return
	}
	t.dirty[n] = struct{}{}
	if t.names.has(n) {
		delete(t.sent, n) // asked again: it is sent again
		return
	}
	t.names[n] = struct{}{}
	res.Subscribe = append(res.Subscribe, n)
}

func (t *served) unsubscribe(n string, res *Result) {
	if n == Wildcard {
		t.wildcard = false
		return
	}
	if !t.names.has(n) {
		return
	}
	delete(t.names, n)
	res.Unsubscribe = append(res.Unsubscribe, n)
	if !t.wildcard {
		delete(t.dirty, n)
		delete(t.sent, n)
		delete(t.refused, n)
	}
}

// answer takes the nonce of a request.
func (t *served) answer(r *Request, res *Result) {
	switch n := r.GetResponseNonce(); {
	case n == "":
	case n != t.nonce:
		res.Unknown = true
	default:
		t.nonce = ""
		why := r.GetErrorDetail().GetMessage()
		if r.GetErrorDetail() != nil && why == "" {
			why = "refused without a reason"
		}
		res.Nack, res.Acked = why, why == ""
		t.blame(why)
		t.carried = nil
	}
}

// blame notes what was refused: the names that the reason tells of, line by line as Client writes it, or all
// that the response carried when it tells of none.
func (t *served) blame(why string) {
	told := map[string]string{}
	for line := range strings.Lines(why) {
		if name, reason, ok := strings.Cut(line, ": "); ok && slices.Contains(t.carried, name) {
			told[name] = strings.TrimSpace(reason)
		}
	}
	for _, name := range t.carried {
		delete(t.refused, name)
		if reason, ok := told[name]; ok {
			t.refused[name] = reason
		} else if why != "" && len(told) == 0 {
			t.refused[name] = why
		}
	}
}

// Wants reports whether the stream gets name.
func (s *Server) Wants(typ, name string) bool {
	t := s.types[typ]
	return t != nil && (t.wildcard || t.names.has(name))
}

// Touch says that name may have changed; nothing happens when the stream does not get it.
func (s *Server) Touch(typ, name string) {
	if s.Wants(typ, name) {
		s.types[typ].dirty[name] = struct{}{}
	}
}

// Next answers the next response to send, or nil when there is none now. get answers a resource as it is now,
// nil when it does not exist; it is asked only for what may have changed.
func (s *Server) Next(version string, get func(typ, name string) *Resource) *Response {
	for _, typ := range s.order {
		t := s.types[typ]
		if t.nonce != "" || len(t.dirty) == 0 {
			continue
		}
		if r := t.response(typ, get); r != nil {
			s.nonce++
			t.nonce = strconv.FormatUint(s.nonce, 10)
			r.Nonce, r.SystemVersionInfo = t.nonce, version
			return r
		}
	}
	return nil
}

func (t *served) response(typ string, get func(typ, name string) *Resource) *Response {
	r := &Response{TypeUrl: typ}
	size := 0
	for _, n := range t.dirty.sorted() {
		if len(t.carried) >= maxResources || size >= maxBytes {
			break
		}
		delete(t.dirty, n)
		res := get(typ, n)
		version, known := t.sent[n]
		switch {
		case res == nil && known && version == "", res != nil && known && version == res.GetVersion():
			continue
		case res == nil:
			if !known && !t.names.has(n) {
				continue // a wildcard client never heard of it
			}
			t.sent[n] = ""
			r.RemovedResources = append(r.RemovedResources, n)
		default:
			t.sent[n] = res.GetVersion()
			r.Resources = append(r.Resources, res)
			size += len(res.GetResource().GetValue())
		}
		t.carried = append(t.carried, n)
	}
	if len(t.carried) == 0 {
		return nil
	}
	return r
}

// Clean reports whether the client has everything in its newest state: nothing is to be sent and nothing on
// its way. What it refused counts as settled; see Refused.
func (s *Server) Clean() bool {
	for _, t := range s.types {
		if t.nonce != "" || len(t.dirty) > 0 {
			return false
		}
	}
	return true
}

// Refused answers, per type and name, why the client refused the newest version; nil when it did not.
func (s *Server) Refused() map[string]string {
	var out map[string]string
	for typ, t := range s.types {
		for n, why := range t.refused {
			if out == nil {
				out = map[string]string{}
			}
			out[typ+" "+n] = why
		}
	}
	return out
}

// Holds reports whether the client has acknowledged the newest form of name.
func (s *Server) Holds(typ, name string) bool {
	t := s.types[typ]
	return t != nil && !t.dirty.has(name) && t.refused[name] == "" && !slices.Contains(t.carried, name)
}
