package envoy

import (
	"reflect"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/model"
)

const previous = `"retry_host_predicate": [{"name": "p", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]`

// TestRetryPolicy: what Envoy's words come to, and its defaults.
func TestRetryPolicy(t *testing.T) {
	const ms = time.Millisecond
	any := broken | model.Retry5xx
	for _, c := range []struct {
		text    string
		want    model.Retry
		attempt time.Duration
		hedge   *model.Hedge
	}{
		{text: `"retry_policy": {"retry_on": "5xx"}`, want: model.Retry{On: any, Attempts: 1, Base: 25 * ms, Max: 250 * ms}},
		{text: `"retry_policy": {"retry_on": "gateway-error, reset", "num_retries": 3, "per_try_timeout": "2s", ` + previous + `, "host_selection_retry_max_attempts": 5}`,
			want: model.Retry{On: broken | model.RetryGateway, Attempts: 3, Base: 25 * ms, Max: 250 * ms, OtherHosts: true}, attempt: 2 * time.Second},
		{text: `"retry_policy": {"retry_on": "connect-failure,refused-stream,retriable-4xx,retriable-status-codes", "retriable_status_codes": [503, 429], "retry_back_off": {"base_interval": "0.1s"}}`,
			want: model.Retry{On: model.RetryUntouched | model.Retry4xx | model.RetryStatuses, Statuses: []uint16{503, 429}, Attempts: 1, Base: 100 * ms, Max: time.Second}},
		{text: `"retry_policy": {"retry_on": "cancelled,unavailable,reset-before-request", "num_retries": 0, "rate_limited_retry_back_off": {"reset_headers": [{"name": "Retry-After"}, {"name": "X-Reset", "format": "UNIX_TIMESTAMP"}]}}`,
			want: model.Retry{On: model.RetryGRPC | model.RetryUntouched, GRPC: 1<<1 | 1<<14, Base: 25 * ms, Max: 250 * ms, RetryAfter: 5 * time.Minute,
				AfterFields: []model.AfterField{{Name: "retry-after"}, {Name: "x-reset", Unix: true}}}},
		{text: `"retry_policy": {"retry_on": "5xx", "num_retries": 2, "per_try_timeout": "1s"}, "hedge_policy": {"hedge_on_per_try_timeout": true}`,
			want: model.Retry{On: any, Attempts: 2, Base: 25 * ms, Max: 250 * ms}, hedge: &model.Hedge{After: time.Second, Most: 3}},
	} {
		c.want.AnyMethod = true
		v, err := read(t, "route", `{`+anyRoute+`, `+toC+`, `+c.text+`}}`)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		r := v.(*model.RouteTable).Hosts[0].Routes[0]
		if !reflect.DeepEqual(*r.Retry, c.want) || r.Timeouts.Attempt != c.attempt || !reflect.DeepEqual(r.Hedge, c.hedge) {
			t.Errorf("%s: %+v, %s, %+v", c.text, r.Retry, r.Timeouts.Attempt, r.Hedge)
		}
	}
}

// TestRetryBudget: Envoy's retry_budget is of what is under way; a cluster without one has max_retries.
func TestRetryBudget(t *testing.T) {
	for text, want := range map[string]model.Budget{
		`{"name": "x"}`: {Off: true},
		`{"name": "x", "circuit_breakers": {"thresholds": [{"retry_budget": {}}]}}`:                                                                                {Percent: 20, Least: 3, UnderWay: true},
		`{"name": "x", "circuit_breakers": {"thresholds": [{"priority": "HIGH", "retry_budget": {"budget_percent": {"value": 50}, "min_retry_concurrency": 1}}]}}`: {Percent: 50, Least: 1, UnderWay: true},
	} {
		v, err := read(t, "cluster", text)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.(*model.Cluster).Budget; got != want {
			t.Errorf("%s: %+v", text, got)
		}
	}
}
