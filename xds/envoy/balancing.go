package envoy

//lint:file-ignore SA1019 what Envoy has deprecated and files still use is read as well

import (
	"math"
	"math/big"
	"time"

	typedv3 "github.com/cncf/xds/go/xds/type/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	csv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	localityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
)

// Bounds of hash tables, Envoy's.
const (
	maxRing  = 8 << 20
	maxTable = 5000011
)

// clusterBalancing reads which endpoint takes a request: lb_policy with the message of its name, or load_balancing_policy.
func clusterBalancing(path string, m *clusterv3.Cluster, c *model.Cluster) error {
	b := &c.Balancing
	if provided := m.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED; provided != (m.GetType() == clusterv3.Cluster_ORIGINAL_DST) {
		return refuse(join(path, "lb_policy"), "%s does not fit type %s: ORIGINAL_DST has CLUSTER_PROVIDED, the others have not", m.GetLbPolicy(), m.GetType())
	}
	err := error(nil)
	if m.GetLoadBalancingPolicy() != nil {
		err = extensionPolicy(path, m, b)
	} else {
		err = oldPolicy(path, m, b)
	}
	if err != nil {
		return err
	}
	common := m.GetCommonLbConfig()
	if p := common.GetHealthyPanicThreshold(); p != nil {
		v := p.GetValue()
		if !(v >= 0 && v <= 100) {
			return refuse(join(path, "common_lb_config.healthy_panic_threshold"), "is not from 0 to 100")
		}
		b.Panic = &v
	}
	if common.GetLocalityWeightedLbConfig() != nil {
		b.Locality.Mode = model.LocalityWeighted
	}
	b.Overprovision = m.GetLoadAssignment().GetPolicy().GetOverprovisioningFactor().GetValue()
	return nil
}

// extensionPolicy reads load_balancing_policy, beside which nothing else says how requests are balanced.
func extensionPolicy(path string, m *clusterv3.Cluster, b *model.Balancing) error {
	p := join(path, "load_balancing_policy")
	if m.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		return refuse(p, "does not fit type ORIGINAL_DST")
	}
	if m.GetCommonLbConfig().GetLocalityWeightedLbConfig() != nil {
		return refuse(join(path, "common_lb_config.locality_weighted_lb_config"), "has no effect beside load_balancing_policy: say it in there")
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"round_robin_lb_config", m.GetRoundRobinLbConfig() != nil}, {"least_request_lb_config", m.GetLeastRequestLbConfig() != nil},
		{"ring_hash_lb_config", m.GetRingHashLbConfig() != nil}, {"maglev_lb_config", m.GetMaglevLbConfig() != nil}, {"lb_subset_config", m.GetLbSubsetConfig() != nil}} {
		if f.set {
			return refuse(join(path, f.name), "has no effect beside load_balancing_policy")
		}
	}
	return policies(p, m.GetLoadBalancingPolicy(), b, true)
}

func oldPolicy(path string, m *clusterv3.Cluster, b *model.Balancing) error {
	switch m.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		b.Policy = model.RoundRobin
		return slowStart(join(path, "round_robin_lb_config.slow_start_config"), m.GetRoundRobinLbConfig().GetSlowStartConfig(), b)
	case clusterv3.Cluster_LEAST_REQUEST:
		p, l := join(path, "least_request_lb_config"), m.GetLeastRequestLbConfig()
		if err := leastRequest(p, l.GetChoiceCount(), b); err != nil {
			return err
		}
		return slowStart(join(p, "slow_start_config"), l.GetSlowStartConfig(), b)
	case clusterv3.Cluster_RANDOM:
		b.Policy = model.Random
		return nil
	case clusterv3.Cluster_RING_HASH:
		r := m.GetRingHashLbConfig()
		return ring(join(path, "ring_hash_lb_config"), r.GetMinimumRingSize(), r.GetMaximumRingSize(), b)
	case clusterv3.Cluster_MAGLEV:
		return maglev(join(path, "maglev_lb_config"), m.GetMaglevLbConfig().GetTableSize(), b)
	case clusterv3.Cluster_CLUSTER_PROVIDED:
		return nil
	case clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG:
		return refuse(join(path, "load_balancing_policy"), "is missing: lb_policy is LOAD_BALANCING_POLICY_CONFIG")
	}
	return refuse(join(path, "lb_policy"), "%s %s", m.GetLbPolicy(), notRun)
}

// policies reads the first policy of a list that is run, as Envoy takes the first that it knows. outer: it is the cluster's
// own list.
func policies(path string, m *clusterv3.LoadBalancingPolicy, b *model.Balancing, outer bool) error {
	if len(m.GetPolicies()) == 0 {
		return refuse(join(path, "policies"), "is empty")
	}
	for i, p := range m.GetPolicies() {
		a := p.GetTypedExtensionConfig().GetTypedConfig()
		q := join(at(join(path, "policies"), i), "typed_extension_config.typed_config")
		if read := policy(a); read != nil && (outer || !is(a, &localityv3.WrrLocality{})) {
			return read(q, a, b)
		}
	}
	return foreign(join(at(join(path, "policies"), 0), "typed_extension_config.typed_config"), m.GetPolicies()[0].GetTypedExtensionConfig().GetTypedConfig())
}

// policy answers what reads a policy, nil if it is not run.
func policy(a *anypb.Any) func(string, *anypb.Any, *model.Balancing) error {
	for _, p := range []struct {
		of   proto.Message
		read func(string, *anypb.Any, *model.Balancing) error
	}{{&roundv3.RoundRobin{}, roundRobinPolicy}, {&leastv3.LeastRequest{}, leastRequestPolicy}, {&randomv3.Random{}, randomPolicy},
		{&ringv3.RingHash{}, ringPolicy}, {&maglevv3.Maglev{}, maglevPolicy}, {&csv3.ClientSideWeightedRoundRobin{}, utilizedPolicy},
		{&localityv3.WrrLocality{}, localityPolicy}} {
		if is(a, p.of) {
			return p.read
		}
	}
	var s typedv3.TypedStruct
	if is(a, &s) && proto.Unmarshal(a.GetValue(), &s) == nil && s.GetTypeUrl() == BalancingType {
		return ownPolicy
	}
	return nil
}

func roundRobinPolicy(path string, a *anypb.Any, b *model.Balancing) error {
	var m roundv3.RoundRobin
	if err := unpack(path, a, &m); err != nil {
		return err
	}
	b.Policy = model.RoundRobin
	byLocality(m.GetLocalityLbConfig(), b)
	return slowStart(join(path, "slow_start_config"), m.GetSlowStartConfig(), b)
}

func leastRequestPolicy(path string, a *anypb.Any, b *model.Balancing) error {
	var m leastv3.LeastRequest
	if err := unpack(path, a, &m); err != nil {
		return err
	}
	if m.GetSelectionMethod() != leastv3.LeastRequest_N_CHOICES {
		return refuse(join(path, "selection_method"), "%s %s", m.GetSelectionMethod(), notRun)
	}
	byLocality(m.GetLocalityLbConfig(), b)
	if err := leastRequest(path, m.GetChoiceCount(), b); err != nil {
		return err
	}
	return slowStart(join(path, "slow_start_config"), m.GetSlowStartConfig(), b)
}

func randomPolicy(path string, a *anypb.Any, b *model.Balancing) error {
	var m randomv3.Random
	if err := unpack(path, a, &m); err != nil {
		return err
	}
	b.Policy = model.Random
	byLocality(m.GetLocalityLbConfig(), b)
	return nil
}

func ringPolicy(path string, a *anypb.Any, b *model.Balancing) error {
	var m ringv3.RingHash
	if err := unpack(path, a, &m); err != nil {
		return err
	}
	if f := m.GetHashFunction(); f != ringv3.RingHash_DEFAULT_HASH && f != ringv3.RingHash_XX_HASH {
		return refuse(join(path, "hash_function"), "%s %s", f, notRun)
	}
	if m.GetLocalityWeightedLbConfig() != nil {
		b.Locality.Mode = model.LocalityWeighted
	}
	return ring(path, m.GetMinimumRingSize(), m.GetMaximumRingSize(), b)
}

func maglevPolicy(path string, a *anypb.Any, b *model.Balancing) error {
	var m maglevv3.Maglev
	if err := unpack(path, a, &m); err != nil {
		return err
	}
	if m.GetLocalityWeightedLbConfig() != nil {
		b.Locality.Mode = model.LocalityWeighted
	}
	return maglev(path, m.GetTableSize(), b)
}

// utilizedPolicy reads weights by reported utilization; reports outside of responses are not asked for.
func utilizedPolicy(path string, a *anypb.Any, b *model.Balancing) error {
	var m csv3.ClientSideWeightedRoundRobin
	if err := unpack(path, a, &m); err != nil {
		return err
	}
	if m.GetEnableOobLoadReport().GetValue() {
		return refuse(join(path, "enable_oob_load_report"), "of true %s: reports are read in responses", notRun)
	}
	b.Policy = model.LeastUtilized
	u := &b.Utilization
	if p := m.GetErrorUtilizationPenalty(); p != nil {
		if u.ErrorPenalty = float64(p.GetValue()); !(u.ErrorPenalty >= 0) || math.IsInf(u.ErrorPenalty, 0) {
			return refuse(join(path, "error_utilization_penalty"), "is less than 0, or no number")
		}
		if u.ErrorPenalty == 0 {
			u.ErrorPenalty = -1 // none; 0 would be the default
		}
	}
	err := durations(path, []durationField{{&u.Blackout, "blackout_period", m.GetBlackoutPeriod(), 10 * time.Second},
		{&u.Expiry, "weight_expiration_period", m.GetWeightExpirationPeriod(), 3 * time.Minute},
		{&u.Update, "weight_update_period", m.GetWeightUpdatePeriod(), time.Second}})
	u.Update = max(u.Update, 100*time.Millisecond)
	if m.GetBlackoutPeriod() != nil && u.Blackout == 0 {
		u.Blackout = 1 // none; 0 would be the default
	}
	if err == nil && u.Expiry == 0 {
		err = refuse(join(path, "weight_expiration_period"), "is not more than 0")
	}
	return err
}

// localityPolicy reads weights of localities around another policy.
func localityPolicy(path string, a *anypb.Any, b *model.Balancing) error {
	var m localityv3.WrrLocality
	if err := unpack(path, a, &m); err != nil {
		return err
	}
	if m.GetEndpointPickingPolicy() == nil {
		return refuse(join(path, "endpoint_picking_policy"), "is missing")
	}
	if err := policies(join(path, "endpoint_picking_policy"), m.GetEndpointPickingPolicy(), b, false); err != nil {
		return err
	}
	b.Locality.Mode = model.LocalityWeighted
	return nil
}

func byLocality(m *commonv3.LocalityLbConfig, b *model.Balancing) {
	if m.GetLocalityWeightedLbConfig() != nil {
		b.Locality.Mode = model.LocalityWeighted
	}
}

func leastRequest(path string, choices *wrapperspb.UInt32Value, b *model.Balancing) error {
	b.Policy = model.LeastRequest
	if b.ChoiceCount = choices.GetValue(); choices != nil && b.ChoiceCount < 2 {
		return refuse(join(path, "choice_count"), "%d is less than 2", b.ChoiceCount)
	}
	return nil
}

func ring(path string, least, most *wrapperspb.UInt64Value, b *model.Balancing) error {
	b.Policy = model.RingHash
	b.MinRing, b.MaxRing = least.GetValue(), most.GetValue()
	from, to := uint64(1024), uint64(maxRing)
	if least != nil {
		from = b.MinRing
	}
	if most != nil {
		to = b.MaxRing
	}
	if from > to || to == 0 || to > maxRing {
		return refuse(path, "a ring has from %d to %d places, which is no range within 0 to %d", from, to, uint64(maxRing))
	}
	return nil
}

func maglev(path string, size *wrapperspb.UInt64Value, b *model.Balancing) error {
	b.Policy = model.Maglev
	if size == nil {
		return nil
	}
	if b.TableSize = size.GetValue(); b.TableSize > maxTable || !big.NewInt(int64(b.TableSize)).ProbablyPrime(0) { // exact up to 2^64
		return refuse(join(path, "table_size"), "%d is not a prime number of at most %d", b.TableSize, maxTable)
	}
	return nil
}

// slowConfig is what both messages of slow start have.
type slowConfig interface {
	GetSlowStartWindow() *durationpb.Duration
	GetAggression() *corev3.RuntimeDouble
	GetMinWeightPercent() *typev3.Percent
	comparable
}

func slowStart[T slowConfig](path string, m T, b *model.Balancing) error {
	var none T
	if m == none {
		return nil
	}
	s := &b.SlowStart
	var err error
	if s.Window, err = duration(join(path, "slow_start_window"), m.GetSlowStartWindow(), 0); err != nil {
		return err
	}
	if s.Window == 0 {
		return refuse(join(path, "slow_start_window"), "is missing, or not more than 0")
	}
	if a := m.GetAggression(); a != nil {
		if s.Aggression = a.GetDefaultValue(); !(s.Aggression > 0) || math.IsInf(s.Aggression, 0) {
			return refuse(join(path, "aggression.default_value"), "is not more than 0")
		}
	}
	if p := m.GetMinWeightPercent(); p != nil {
		if s.Least = p.GetValue(); !(s.Least >= 0 && s.Least <= 100) {
			return refuse(join(path, "min_weight_percent"), "is not from 0 to 100")
		}
		s.Least = max(s.Least, 0.001) // 0 would be the default
	}
	return nil
}
