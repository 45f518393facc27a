package envoy

import (
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"

	"github.com/tulle-mesh/tulle/model"
)

// maxRetries bounds num_retries; Envoy has no bound.
const maxRetries = 100

// broken is what Envoy calls a reset: no response, because there was no connection, it broke, or it took too long.
const broken = model.RetryUntouched | model.RetryReset | model.RetryTimeout

// retryWords are the conditions of retry_on, Envoy's x-envoy-retry-on and x-envoy-retry-grpc-on.
var retryWords = map[string]model.Retry{
	"5xx":                    {On: broken | model.Retry5xx},
	"gateway-error":          {On: broken | model.RetryGateway},
	"reset":                  {On: broken},
	"reset-before-request":   {On: model.RetryUntouched},
	"connect-failure":        {On: model.RetryUntouched},
	"refused-stream":         {On: model.RetryUntouched},
	"retriable-4xx":          {On: model.Retry4xx},
	"retriable-status-codes": {On: model.RetryStatuses},
	"cancelled":              {On: model.RetryGRPC, GRPC: 1 << 1},
	"deadline-exceeded":      {On: model.RetryGRPC, GRPC: 1 << 4},
	"internal":               {On: model.RetryGRPC, GRPC: 1 << 13},
	"resource-exhausted":     {On: model.RetryGRPC, GRPC: 1 << 8},
	"unavailable":            {On: model.RetryGRPC, GRPC: 1 << 14},
}

// retryPolicy reads when requests are sent again, and into t how long one attempt may take. Envoy sends requests of any
// method again, and so does a file that asks for it in Envoy's words.
func retryPolicy(path string, m *routev3.RetryPolicy, t *model.Timeouts) (*model.Retry, error) {
	r := &model.Retry{Attempts: numberOr(m.GetNumRetries(), 1), AnyMethod: true}
	if r.Attempts > maxRetries {
		return nil, refuse(join(path, "num_retries"), "%d is more than %d", r.Attempts, maxRetries)
	}
	for word := range strings.SplitSeq(m.GetRetryOn(), ",") {
		word = strings.TrimSpace(word)
		c, ok := retryWords[word]
		if !ok && word != "" {
			return nil, refuse(join(path, "retry_on"), "%q %s", clip(word), notRun)
		}
		r.On, r.GRPC = r.On|c.On, r.GRPC|c.GRPC
	}
	for i, s := range m.GetRetriableStatusCodes() {
		if s < 200 || s > 599 {
			return nil, refuse(at(join(path, "retriable_status_codes"), i), "%d is not from 200 to 599", s)
		}
		r.Statuses = append(r.Statuses, uint16(s))
	}
	for i, h := range m.GetRetryHostPredicate() {
		p := join(at(join(path, "retry_host_predicate"), i), "typed_config")
		if !is(h.GetTypedConfig(), &previousv3.PreviousHostsPredicate{}) {
			return nil, foreign(p, h.GetTypedConfig())
		}
		if err := unpack(p, h.GetTypedConfig(), &previousv3.PreviousHostsPredicate{}); err != nil {
			return nil, err
		}
		r.OtherHosts = true
	}
	if m.GetHostSelectionRetryMaxAttempts() < 0 {
		return nil, refuse(join(path, "host_selection_retry_max_attempts"), "is negative")
	}
	if err := durations(path, []durationField{{&t.Attempt, "per_try_timeout", m.GetPerTryTimeout(), 0}}); err != nil {
		return nil, err
	}
	return r, retryWaits(path, m, r)
}

// retryWaits reads how long to wait before the next attempt.
func retryWaits(path string, m *routev3.RetryPolicy, r *model.Retry) error {
	r.Base = 25 * time.Millisecond
	if b := m.GetRetryBackOff(); b != nil {
		p := join(path, "retry_back_off")
		if err := durations(p, []durationField{{&r.Base, "base_interval", b.GetBaseInterval(), 0}, {&r.Max, "max_interval", b.GetMaxInterval(), 0}}); err != nil {
			return err
		}
		if r.Base < time.Millisecond {
			return refuse(join(p, "base_interval"), "is less than 1ms")
		}
		if b.GetMaxInterval() != nil && r.Max < r.Base {
			return refuse(join(p, "max_interval"), "%s is less than base_interval", r.Max)
		}
	}
	if r.Max == 0 {
		r.Max = 10 * r.Base
	}
	l := m.GetRateLimitedRetryBackOff()
	if l == nil {
		return nil
	}
	p := join(path, "rate_limited_retry_back_off")
	r.RetryAfter = 5 * time.Minute
	if l.GetMaxInterval() != nil {
		var err error
		if r.RetryAfter, err = duration(join(p, "max_interval"), l.GetMaxInterval(), 0); err != nil {
			return err
		}
	}
	if r.RetryAfter <= 0 {
		return refuse(join(p, "max_interval"), "is not more than 0")
	}
	for i, h := range l.GetResetHeaders() {
		f := model.AfterField{Name: strings.ToLower(h.GetName()), Unix: h.GetFormat() == routev3.RetryPolicy_UNIX_TIMESTAMP}
		if !token(f.Name) {
			return refuse(join(at(join(p, "reset_headers"), i), "name"), "%q is not the name of a header", clip(h.GetName()))
		}
		r.AfterFields = append(r.AfterFields, f)
	}
	if len(r.AfterFields) == 0 {
		return refuse(join(p, "reset_headers"), "is missing")
	}
	return nil
}

// hedgePolicy reads when a second attempt is made beside the first: what Envoy calls hedging on the timeout of an attempt,
// which then does not end it.
func hedgePolicy(path string, m *routev3.HedgePolicy, r *model.Route) error {
	if !m.GetHedgeOnPerTryTimeout() {
		return nil
	}
	if r.Retry == nil || r.Timeouts.Attempt == 0 {
		return refuse(join(path, "hedge_on_per_try_timeout"), "has no effect without a retry_policy that has a per_try_timeout")
	}
	if r.Retry.Attempts > 0 {
		r.Hedge = &model.Hedge{After: r.Timeouts.Attempt, Most: min(1+r.Retry.Attempts, 8)}
	}
	r.Timeouts.Attempt = 0
	return nil
}

// attempts reads what a route says about attempts, or else its virtual host.
func attempts(path string, m *routev3.RouteAction, host *routev3.VirtualHost, hostPath string, r *model.Route) error {
	policy, p := m.GetRetryPolicy(), join(path, "retry_policy")
	if policy == nil {
		policy, p = host.GetRetryPolicy(), join(hostPath, "retry_policy")
	}
	if policy != nil {
		var err error
		if r.Retry, err = retryPolicy(p, policy, &r.Timeouts); err != nil {
			return err
		}
	}
	if h := m.GetHedgePolicy(); h != nil {
		return hedgePolicy(join(path, "hedge_policy"), h, r)
	}
	if h := host.GetHedgePolicy(); h != nil {
		return hedgePolicy(join(hostPath, "hedge_policy"), h, r)
	}
	return nil
}

// retryBudget reads the budget of a cluster's retries; there is one for both priorities.
func retryBudget(path string, m *clusterv3.CircuitBreakers_Thresholds_RetryBudget, c *model.Cluster) error {
	if m == nil {
		return nil
	}
	b := model.Budget{Percent: 20, Least: numberOr(m.GetMinRetryConcurrency(), 3), UnderWay: true}
	if v := m.GetBudgetPercent(); v != nil {
		if b.Percent = uint32(v.GetValue()); !(v.GetValue() >= 0 && v.GetValue() <= 100) || float64(b.Percent) != v.GetValue() {
			return refuse(join(path, "budget_percent"), "is not a whole number from 0 to 100")
		}
	}
	if c.Budget.UnderWay && c.Budget != b {
		return refuse(path, "differs from that of the other priority; Tulle has one for both")
	}
	c.Budget = b
	return nil
}
