package envoy

import (
	"slices"
	"time"

	typedv3 "github.com/cncf/xds/go/xds/type/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tulle-mesh/tulle/model"
)

// What Tulle has and Envoy has no message for is written where Envoy passes over what it does not know: a policy of balancing
// among those of load_balancing_policy, as a TypedStruct, with Envoy's own behind it; the rest in a cluster's metadata. The
// words are those of TrafficPolicy.

// BalancingType is the type of the TypedStruct that says all of model.Balancing.
const BalancingType = "type.googleapis.com/tulle.v1.Balancing"

// factsKey is where a cluster's metadata says what else Envoy has no field for.
const factsKey = "tulle.v1"

// ownPolicy reads a TypedStruct of BalancingType.
func ownPolicy(path string, a *anypb.Any, b *model.Balancing) error {
	var m typedv3.TypedStruct
	if err := proto.Unmarshal(a.GetValue(), &m); err != nil {
		return refuse(path, "%s", clip(err.Error()))
	}
	r := reader{path: join(path, "value"), m: m.GetValue()}
	choose(&r, "policy", &b.Policy, policyNames)
	b.ChoiceCount = uint32(r.number("choices", 0, 64))
	if b.ChoiceCount == 1 {
		r.refuse("choices", "is less than 2")
	}
	ringOf := r.object("ring")
	b.MinRing, b.MaxRing = uint64(ringOf.number("minimum", 0, maxRing)), uint64(ringOf.number("maximum", 0, maxRing))
	b.TableSize = uint64(r.number("table", 0, maxTable))
	b.EWMA = model.EWMA{Decay: r.duration("decay"), Start: r.duration("start")}
	b.Utilization = model.Utilization{Blackout: r.duration("blackout"), Expiry: r.duration("expiry"), Update: r.duration("update"), ErrorPenalty: r.number("errorPenalty", -1, 1e6)}
	slow := r.object("slowStart")
	b.SlowStart = model.SlowStart{Window: slow.duration("window"), Aggression: slow.number("aggression", 0, 1000), Least: slow.number("least", 0, 100)}
	loc := r.object("locality")
	choose(loc, "mode", &b.Locality.Mode, localityNames)
	b.Locality.SpillAt = uint32(loc.number("spillAt", 0, 1e6))
	for _, f := range loc.list("failover") {
		b.Locality.Failover = append(b.Locality.Failover, model.Failover{From: f.text("from"), To: f.text("to")})
		loc.take(f.done())
	}
	b.Locality.Labels = loc.texts("labels")
	for _, o := range []*reader{ringOf, slow, loc} {
		r.take(o.done())
	}
	b.Shards = ownShards(&r)
	if err := r.done(); err != nil {
		return err
	}
	if b.Shards != nil && (b.Policy == model.RingHash || b.Policy == model.Maglev) {
		return refuse(r.path, "shards: mean nothing with policy %s, which hashes the same", b.Policy)
	}
	switch b.Policy {
	case model.RingHash:
		if b.MaxRing > 0 && b.MinRing > b.MaxRing {
			return refuse(r.path, "ring: minimum is more than maximum")
		}
	case model.Maglev:
		if b.TableSize > 0 {
			return maglev(join(path, "value.table"), wrapped(b.TableSize), b)
		}
	}
	return nil
}

// ownShards reads shards; nil: there are none.
func ownShards(r *reader) *model.Shards {
	o := r.object("shards")
	if o.m == nil {
		return nil
	}
	s := &model.Shards{Slots: uint32(o.number("slots", 0, model.MaxSlots)), Label: o.text("label")}
	if s.Slots == 0 {
		o.refuse("slots", "is missing: write how many there are")
	}
	if s.Label == "" {
		s.Label = model.LabelShards
	}
	otherwise := uint8(0)
	choose(o, "otherwise", &otherwise, otherwiseNames)
	s.Any = otherwise == 1
	r.take(o.done())
	return s
}

// policyNames and localityNames are the words, by the model's constants.
var (
	policyNames   = []string{"LeastRequest", "RoundRobin", "Random", "RingHash", "Maglev", "PeakEWMA", "LeastUtilized"}
	localityNames = []string{"Ignore", "Prefer", "Weighted"}

	otherwiseNames = []string{"Refuse", "Any"}
)

// clusterFacts reads what of a cluster's metadata is ours.
func clusterFacts(path string, m *clusterv3.Cluster, c *model.Cluster) error {
	s := m.GetMetadata().GetFilterMetadata()[factsKey]
	if s == nil {
		return nil
	}
	r := reader{path: join(path, "metadata.filter_metadata."+factsKey), m: s}
	e := r.object("ejection")
	if o := c.Outlier; o != nil {
		o.Probe = e.truth("probe")
		l := e.object("latency")
		o.LatencyFactor, o.LatencyLeast = l.number("factor", 0, 1e6), l.duration("least")
		o.LatencyMinimumHosts, o.LatencyRequestVolume = uint32(l.number("hosts", 0, 1e6)), uint32(l.number("requests", 0, 1e9))
		e.take(l.done())
		r.take(e.done())
	} else if e.m != nil {
		r.refuse("ejection", "needs outlier_detection")
	}
	return r.done()
}

// reader reads a struct strictly: every field has to be asked for. The first error stays.
type reader struct {
	path  string
	m     *structpb.Struct
	asked []string
	err   error
}

func (r *reader) refuse(name, why string) {
	if r.err == nil {
		r.err = refuse(join(r.path, name), "%s", why)
	}
}

func (r *reader) take(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) get(name string) *structpb.Value {
	r.asked = append(r.asked, name)
	return r.m.GetFields()[name]
}

// done answers the first error; a field that nobody has asked for is one.
func (r *reader) done() error {
	var unknown []string
	for name := range r.m.GetFields() {
		if !slices.Contains(r.asked, name) {
			unknown = append(unknown, name)
		}
	}
	if slices.Sort(unknown); len(unknown) > 0 {
		r.refuse(clip(unknown[0]), "is no field of it")
	}
	return r.err
}

func (r *reader) object(name string) *reader {
	v := r.get(name)
	if v != nil && v.GetStructValue() == nil {
		r.refuse(name, "is no object")
	}
	return &reader{path: join(r.path, name), m: v.GetStructValue()}
}

func (r *reader) list(name string) (out []*reader) {
	v := r.get(name)
	if v != nil && v.GetListValue() == nil {
		r.refuse(name, "is no list")
	}
	for i, one := range v.GetListValue().GetValues() {
		p := at(join(r.path, name), i)
		if one.GetStructValue() == nil {
			r.take(refuse(p, "is no object"))
		}
		out = append(out, &reader{path: p, m: one.GetStructValue()})
	}
	return out
}

func (r *reader) texts(name string) (out []string) {
	v := r.get(name)
	if v != nil && v.GetListValue() == nil {
		r.refuse(name, "is no list")
	}
	for i, one := range v.GetListValue().GetValues() {
		if one.GetStringValue() == "" {
			r.take(refuse(at(join(r.path, name), i), "is no text"))
		}
		out = append(out, one.GetStringValue())
	}
	return out
}

func (r *reader) text(name string) string {
	v := r.get(name)
	if _, ok := v.GetKind().(*structpb.Value_StringValue); v != nil && !ok {
		r.refuse(name, "is no text")
	}
	return v.GetStringValue()
}

func (r *reader) truth(name string) bool {
	v := r.get(name)
	if _, ok := v.GetKind().(*structpb.Value_BoolValue); v != nil && !ok {
		r.refuse(name, "is neither true nor false")
	}
	return v.GetBoolValue()
}

func (r *reader) number(name string, least, most float64) float64 {
	v := r.get(name)
	if v == nil {
		return 0
	}
	n := v.GetNumberValue()
	if _, ok := v.GetKind().(*structpb.Value_NumberValue); !ok || !(n >= least && n <= most) {
		r.refuse(name, "is no number, or out of its bounds")
		return 0
	}
	return n
}

func (r *reader) duration(name string) time.Duration {
	s := r.text(name)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		r.refuse(name, "is no duration, for example 10s")
		return 0
	}
	return d
}

// choose reads one of several words.
func choose[T ~uint8](r *reader, name string, to *T, words []string) {
	s := r.text(name)
	if s == "" {
		return
	}
	i := slices.Index(words, s)
	if i < 0 {
		r.refuse(name, "is none of its words")
		return
	}
	*to = T(i)
}
