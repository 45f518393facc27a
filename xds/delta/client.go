package delta

import (
	"maps"
	"slices"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
)

// Client is the asking side. Subscriptions outlive streams: Restart begins a new one, with the versions that
// are held, so that nothing known is sent again.
type Client struct {
	node  string
	named bool // this stream has been told node
	types map[string]*asked
	order []string // of types, so that what is sent does not depend on a map
}

// asked is what is asked of one type.
type asked struct {
	names    set               // subscribed
	versions map[string]string // held and subscribed
	add, del set               // not yet sent on this stream
	live     set               // sent on this stream
	first    bool              // nothing was sent on this stream
}

// NewClient makes a client without subscriptions, which calls itself node; call Restart when its first stream is up.
func NewClient(node string) *Client { return &Client{node: node, types: map[string]*asked{}} }

// Subscribe asks for name; it is sent with the next Requests. It answers whether it is new.
func (c *Client) Subscribe(typ, name string) bool {
	t := c.types[typ]
	if t == nil {
		t = &asked{names: set{}, versions: map[string]string{}, add: set{}, del: set{}, live: set{}, first: true}
		c.types[typ] = t
		c.order = append(c.order, typ)
		slices.Sort(c.order)
	}
	if t.names.has(name) {
		return false
	}
	t.names[name] = struct{}{}
	t.add[name] = struct{}{} // also when its end was not sent yet: asked again, it is answered again
	delete(t.del, name)
	return true
}

// Unsubscribe ends that and forgets the version. It answers whether name was subscribed.
func (c *Client) Unsubscribe(typ, name string) bool {
	t := c.types[typ]
	if t == nil || !t.names.has(name) {
		return false
	}
	delete(t.names, name)
	delete(t.versions, name)
	delete(t.add, name)
	if t.live.has(name) {
		t.del[name] = struct{}{}
	}
	return true
}

// Subscribed reports whether name is subscribed.
func (c *Client) Subscribed(typ, name string) bool {
	t := c.types[typ]
	return t != nil && t.names.has(name)
}

// Restart says that a new stream has begun: everything subscribed will be sent again.
func (c *Client) Restart() {
	c.named = false
	for _, t := range c.types {
		t.first = true
		t.add, t.del, t.live = set{}, set{}, set{}
		for n := range t.names {
			t.add[n] = struct{}{}
		}
	}
}

// Requests answers what has to be sent now, at most one message per type.
func (c *Client) Requests() []*Request {
	var out []*Request
	for _, typ := range c.order {
		t := c.types[typ]
		if len(t.add) == 0 && len(t.del) == 0 {
			continue
		}
		r := &Request{TypeUrl: typ, ResourceNamesSubscribe: t.add.sorted(), ResourceNamesUnsubscribe: t.del.sorted()}
		if t.first && len(t.versions) > 0 {
			r.InitialResourceVersions = make(map[string]string, len(t.versions))
			for n, v := range t.versions {
				r.InitialResourceVersions[n] = v
			}
		}
		maps.Copy(t.live, t.add)
		for n := range t.del {
			delete(t.live, n)
		}
		t.add, t.del, t.first = set{}, set{}, false
		c.sign(r)
		out = append(out, r)
	}
	return out
}

// Greeting answers the first request of a stream on which nothing is asked for yet, so that the other side knows who
// is there; nil when it has been told. The request asks for typ and says that this is not the older way of asking
// for everything.
func (c *Client) Greeting(typ string) *Request {
	if c.named {
		return nil
	}
	r := &Request{TypeUrl: typ, ResourceNamesUnsubscribe: []string{Wildcard}}
	c.sign(r)
	return r
}

// sign puts our name into the first request of a stream.
func (c *Client) sign(r *Request) {
	if !c.named {
		c.named = true
		r.Node = &core.Node{Id: c.node}
	}
}

// Update is one resource of a response; Resource is nil when the name does not exist.
type Update struct {
	Name     string
	Resource *Resource
}

// Receive answers the updates of a response that are about subscribed names, removals first. Apply them and
// then Finish.
func (c *Client) Receive(r *Response) []Update {
	t := c.types[r.GetTypeUrl()]
	if t == nil {
		return nil
	}
	var out []Update
	for _, n := range r.GetRemovedResources() {
		if t.names.has(n) || t.names.has(Wildcard) {
			out = append(out, Update{Name: n})
		}
	}
	for _, res := range r.GetResources() {
		if t.names.has(res.GetName()) || t.names.has(Wildcard) {
			out = append(out, Update{Name: res.GetName(), Resource: res})
		}
	}
	return out
}

// Finish notes what was applied and answers the ack, or the nack when something was refused: refused says why,
// by name. What was not refused counts as held even in a nacked response.
func (c *Client) Finish(r *Response, refused map[string]error) *Request {
	if t := c.types[r.GetTypeUrl()]; t != nil {
		for _, u := range c.Receive(r) {
			switch {
			case u.Resource == nil:
				delete(t.versions, u.Name)
			case refused[u.Name] == nil:
				t.versions[u.Name] = u.Resource.GetVersion()
			}
		}
	}
	ack := &Request{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
	if len(refused) > 0 {
		ack.ErrorDetail = &status.Status{Code: invalidArgument, Message: reasons(refused)}
	}
	return ack
}

// invalidArgument is codes.InvalidArgument.
const invalidArgument = 3

// maxReason bounds the text of a nack, in bytes.
const maxReason = 4096

func reasons(refused map[string]error) string {
	names := set{}
	for n := range refused {
		names[n] = struct{}{}
	}
	text := ""
	for _, n := range names.sorted() {
		if text += n + ": " + refused[n].Error() + "\n"; len(text) > maxReason {
			return text[:maxReason]
		}
	}
	return text[:len(text)-1]
}
