package envoy

import (
	"math"
	"time"

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

const policyNamesOf = "envoy.load_balancing_policies."

// Policy writes b as load_balancing_policy, as much of it as Envoy has fields for; nil where lb_policy and its own messages say as
// much. What is out of the bounds of Envoy's fields is left out.
func Policy(b *model.Balancing) (*clusterv3.LoadBalancingPolicy, error) {
	weighted := b.Locality.Mode == model.LocalityWeighted
	if b.Policy != model.LeastUtilized && !weighted && slowOf(b) == nil {
		return nil, nil
	}
	name, m := nearest(b, weighted)
	if weighted && b.Policy == model.LeastUtilized {
		inner, err := one(name, m)
		if err != nil {
			return nil, err
		}
		name, m = "wrr_locality", &localityv3.WrrLocality{EndpointPickingPolicy: inner}
	}
	return one(name, m)
}

func one(name string, m proto.Message) (*clusterv3.LoadBalancingPolicy, error) {
	a, err := anypb.New(m)
	if err != nil {
		return nil, err
	}
	return &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{
		{TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: policyNamesOf + name, TypedConfig: a}}}}, nil
}

// slowOf answers b's slow start for the policies that have one in Envoy.
func slowOf(b *model.Balancing) *commonv3.SlowStartConfig {
	s := b.SlowStart
	bounded := s.Aggression >= 0 && !math.IsInf(s.Aggression, 0) && s.Least >= 0 && s.Least <= 100
	if s.Window <= 0 || !bounded || b.Policy == model.Random || b.Policy == model.RingHash || b.Policy == model.Maglev || b.Policy == model.LeastUtilized {
		return nil
	}
	out := &commonv3.SlowStartConfig{SlowStartWindow: durationpb.New(s.Window)}
	if s.Aggression > 0 {
		out.Aggression = &corev3.RuntimeDouble{DefaultValue: s.Aggression, RuntimeKey: "tulle.aggression"}
	}
	if s.Least > 0 {
		out.MinWeightPercent = &typev3.Percent{Value: s.Least}
	}
	return out
}

// nearest answers the policy of Envoy's that is like b.
func nearest(b *model.Balancing, byWeight bool) (name string, m proto.Message) {
	var loc *commonv3.LocalityLbConfig
	var weighted *commonv3.LocalityLbConfig_LocalityWeightedLbConfig
	if byWeight {
		weighted = &commonv3.LocalityLbConfig_LocalityWeightedLbConfig{}
		loc = &commonv3.LocalityLbConfig{LocalityConfigSpecifier: &commonv3.LocalityLbConfig_LocalityWeightedLbConfig_{LocalityWeightedLbConfig: weighted}}
	}
	switch b.Policy {
	case model.RoundRobin:
		return "round_robin", &roundv3.RoundRobin{SlowStartConfig: slowOf(b), LocalityLbConfig: loc}
	case model.Random:
		return "random", &randomv3.Random{LocalityLbConfig: loc}
	case model.RingHash:
		return "ring_hash", &ringv3.RingHash{MinimumRingSize: wrapped(b.MinRing), MaximumRingSize: wrapped(b.MaxRing), LocalityWeightedLbConfig: weighted}
	case model.Maglev:
		return "maglev", &maglevv3.Maglev{TableSize: wrapped(b.TableSize), LocalityWeightedLbConfig: weighted}
	case model.LeastUtilized:
		u := b.Utilization
		out := &csv3.ClientSideWeightedRoundRobin{BlackoutPeriod: positive(u.Blackout), WeightExpirationPeriod: positive(u.Expiry), WeightUpdatePeriod: positive(u.Update)}
		if p := float32(u.ErrorPenalty); p != 0 && !math.IsInf(float64(p), 0) {
			out.ErrorUtilizationPenalty = wrapperspb.Float(max(p, 0))
		}
		return "client_side_weighted_round_robin", out
	}
	out := &leastv3.LeastRequest{SlowStartConfig: slowOf(b), LocalityLbConfig: loc}
	if b.ChoiceCount >= 2 {
		out.ChoiceCount = wrapperspb.UInt32(b.ChoiceCount)
	}
	return "least_request", out
}

func wrapped(n uint64) *wrapperspb.UInt64Value {
	if n == 0 {
		return nil
	}
	return wrapperspb.UInt64(n)
}

func positive(d time.Duration) *durationpb.Duration {
	if d <= 0 {
		return nil
	}
	return durationpb.New(d)
}
