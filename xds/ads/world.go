package ads

import (
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tulle-mesh/tulle/model"
)

// world is the protocol in which a response has everything of a kind: listeners and clusters that it does not name are
// gone; of the others it may name some, and none is ever said to be gone.
type world struct {
	node  *corev3.Node
	named bool // this stream has been told node
	kinds map[model.ResourceKind]*standing
}

// standing is how it stands with one kind.
type standing struct {
	names   []string        // wanted, sorted; nil: all
	all     bool            // names do not matter
	due     bool            // names have changed since the last request
	version string          // of the newest response that was taken
	nonce   string          // of the newest response of this stream
	held    map[string]bool // of listeners and clusters: what was taken
}

func newWorld(node *corev3.Node) *world {
	return &world{node: node, kinds: map[model.ResourceKind]*standing{}}
}

func (w *world) want(kind model.ResourceKind, names []string) {
	s := w.kinds[kind]
	if s == nil {
		s = &standing{all: kind == model.ResourceListener || kind == model.ResourceCluster, held: map[string]bool{}}
		w.kinds[kind] = s
		s.due = s.all || len(names) > 0
	}
	if sorted := slices.Sorted(slices.Values(names)); !slices.Equal(sorted, s.names) {
		s.names, s.due = sorted, true
	}
}

func (w *world) restart() {
	w.named = false
	for _, s := range w.kinds {
		s.nonce, s.due = "", s.all || len(s.names) > 0
	}
}

func (w *world) ask() []proto.Message {
	var out []proto.Message
	for _, kind := range asked {
		if s := w.kinds[kind]; s != nil && s.due {
			s.due = false
			out = append(out, w.request(kind, s))
		}
	}
	return out
}

func (w *world) request(kind model.ResourceKind, s *standing) *discovery.DiscoveryRequest {
	r := &discovery.DiscoveryRequest{TypeUrl: typeURLs[kind], VersionInfo: s.version, ResponseNonce: s.nonce, ResourceNames: s.names}
	if !w.named {
		w.named, r.Node = true, w.node
	}
	return r
}

func (w *world) hear(m proto.Message) (batch, bool) {
	r := m.(*discovery.DiscoveryResponse) // serve reads nothing else
	kind, ok := kindOf(r.GetTypeUrl())
	s := w.kinds[kind]
	if !ok || s == nil {
		return batch{}, false
	}
	b := batch{kind: kind}
	for _, a := range r.GetResources() {
		it := unwrap(a)
		if it.name == "" { // what is not decodable is refused later
			it.name, _ = decode(kind, it.body, &model.Updates{})
		}
		if s.all || slices.Contains(s.names, it.name) || it.name == "" {
			b.items = append(b.items, it)
		}
	}
	if s.all {
		gone := maps.Clone(s.held)
		for _, it := range b.items {
			delete(gone, it.name)
		}
		b.removed = slices.Sorted(maps.Keys(gone))
	}
	return b, true
}

func (w *world) answer(m proto.Message, b batch, refused map[string]error) proto.Message {
	r := m.(*discovery.DiscoveryResponse) // serve reads nothing else
	s := w.kinds[b.kind]
	s.nonce = r.GetNonce()
	for _, n := range b.removed {
		delete(s.held, n)
	}
	for _, it := range b.items {
		if s.all && refused[it.name] == nil {
			s.held[it.name] = true
		}
	}
	if len(refused) == 0 {
		s.version = r.GetVersionInfo()
	}
	s.due = false // an answer says as well what is wanted
	out := w.request(b.kind, s)
	if len(refused) > 0 {
		out.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: reasons(refused)}
	}
	return out
}

// maxReason bounds the text of a NACK, in bytes.
const maxReason = 4096

func reasons(refused map[string]error) string {
	text := ""
	for _, n := range slices.Sorted(maps.Keys(refused)) {
		if text != "" {
			text += "; "
		}
		if n != "" {
			text += n + ": "
		}
		if text += refused[n].Error(); len(text) > maxReason {
			return text[:maxReason]
		}
	}
	return text
}
