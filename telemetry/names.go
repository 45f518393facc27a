// Package telemetry is the name and meaning of everything that Tulle measures and logs: metrics, labels and
// fields of the access log, in one table that the reference page docs/reference/metrics.md is generated from.
// It also holds what both planes must understand alike: the edge of the service graph and its latency
// histogram. Nothing here measures anything. Start reading at Metrics and Edge.
package telemetry

// Values of labels that name no service.
const (
	Outside = "outside" // not in the mesh
	Other   = "other"   // over the series budget
)

// Names of metrics.
const (
	RequestsTotal       = "tulle_requests_total"
	RequestDuration     = "tulle_request_duration_seconds"
	TCPOpened           = "tulle_tcp_connections_opened_total"
	TCPClosed           = "tulle_tcp_connections_closed_total"
	TCPSent             = "tulle_tcp_sent_bytes_total"
	TCPReceived         = "tulle_tcp_received_bytes_total"
	RefusedTotal        = "tulle_refused_total"
	MirroredTotal       = "tulle_mirrored_requests_total"
	BreakerOverflows    = "tulle_breaker_overflows_total"
	RetriesTotal        = "tulle_retries_total"
	RetryBudgetLeft     = "tulle_retry_budget_left"
	ClusterEndpoints    = "tulle_cluster_endpoints"
	HealthChecks        = "tulle_health_checks_total"
	Ejections           = "tulle_ejections_total"
	AuthzDecisions      = "tulle_authz_decisions_total"
	AuthzUnanswered     = "tulle_authz_unanswered_total"
	RateLimited         = "tulle_rate_limited_total"
	Shed                = "tulle_shed_total"
	AtWork              = "tulle_requests_at_work"
	ConcurrencyLimit    = "tulle_concurrency_limit"
	TLSHandshakes       = "tulle_tls_handshakes"
	TLSHandshakesShed   = "tulle_tls_handshakes_shed_total"
	SeriesOverflow      = "tulle_series_overflow_total"
	AccessLogDropped    = "tulle_access_log_dropped_total"
	ControlConnected    = "tulle_control_plane_connected"
	IdentityLeft        = "tulle_identity_left_seconds"
	IdentityFailed      = "tulle_identity_renewals_failed_total"
	TrustStage          = "tulle_trust_stage"
	ClockAhead          = "tulle_clock_ahead_seconds"
	CaptureWorks        = "tulle_capture_works"
	CaptureFailed       = "tulle_capture_checks_failed_total"
	ProcessCPU          = "process_cpu_seconds_total"
	ProcessMemory       = "process_resident_memory_bytes"
	ProcessPrivate      = "tulle_process_private_memory_bytes"
	ProcessOpenFiles    = "process_open_fds"
	ProcessStart        = "process_start_time_seconds"
	GoGoroutines        = "go_goroutines"
	GoHeap              = "go_memory_heap_objects_bytes"
	GoGarbageCollection = "go_gc_cycles_total"
)

// Label is one label of a metric.
type Label struct{ Name, Meaning string }

// Labels is the closed list of labels.
var Labels = [...]Label{
	{"direction", "`outbound`: seen by the caller's proxy; `inbound`: seen by the server's"},
	{"source", "the caller, `name.namespace` (inbound: from its proven identity); `outside` if it is not in the mesh"},
	{"destination", "the service called, `name.namespace`; `outside` for passthrough"},
	{"port", "port of the destination"},
	{"route", "the route that matched, `HTTPRoute/namespace/name`; empty inbound and where none matched"},
	{"backend", "outbound: the Service that the route chose, `name.namespace`; empty if none was chosen"},
	{"protocol", "what was spoken: `http`, `grpc`, `tcp`, `tls`, `unknown`"},
	{"mtls", "`true` if both proxies proved their identities to each other"},
	{"code", "HTTP status; `0` if none was sent"},
	{"grpc_status", "gRPC status, a number; empty if the response had none"},
	{"reason", "why it failed (docs/reference/failures.md); empty if it did not"},
	{"cluster", "the cluster's name; of a workload's proxy `name.namespace:port`"},
	{"outcome", "of a further attempt: `made`, or `refused` because the budget, or the bound of retries under way, did not allow it"},
	{"priority", "of the route: `default` or `high`"},
	{"bound", "of the cluster's circuit breakers: `connections`, `pending_requests`, `requests`, `retries`"},
	{"at", "what takes requests: a sidecar's port; of a proxy without a workload the listener and the number of its filter chain"},
	{"limit", "name of a rate limit"},
	{"shadow", "`true` where the limit only counts"},
	{"class", "of a request: `critical`, `default`, `batch`"},
	{"health", "of an endpoint: `healthy`, or what is wrong with it as Envoy names it: `failed_active_hc`, `failed_outlier_check`, `failed_eds_health`, `degraded_eds_health`, `eds_status_draining`; several with slashes between"},
	{"result", "of a health check: `passed`, `failed` (the wrong answer), `unreachable` (no answer)"},
	{"why", "an endpoint was ejected: `consecutive_5xx`, `consecutive_gateway_failure`, `consecutive_local_origin_failure`, `success_rate`, `failure_percentage`, `local_origin_success_rate`, `local_origin_failure_percentage`, `latency`, `probe`"},
	{"state", "of TLS handshakes: `computing`; `open`, begun and not over, those that compute among them; `waiting`, clients that wait for their turn"},
	{"shed", "a TLS handshake was given up because there was no room (`refused`), because its client kept others waiting (`evicted`), because its time was over (`late`)"},
	{"action", "of the policy that decided: `allow`, `deny`, `external`; `absent`: no rule of those that allow held; `default`: no policy was about it; `dry_run`: what would have been decided with the policies in dry run, where that is something else; `audit`: the rule of an auditing policy held"},
	{"verdict", "`allowed`, `denied`; `audited`"},
	{"policy", "`AuthorizationPolicy/namespace/name`; empty where none decided"},
	{"rule", "of the policy that decided: its name, or `rules[0]` and so on; empty where no rule did. Where the budget is used up, `other`"},
	{"certificate", "`root`, `intermediate` (those that sign), `control` (the control plane's own), `first` (the first in use anywhere in the mesh to end)"},
	{"phase", "of a change of roots: `steady`, `announced`, `signing` (docs/design/security.md)"},
	{"type", "of a resource: `Service`, `RouteTable`, `Cluster`, `Endpoints`, `Security`, `Trust`; `other`"},
	{"le", "upper bound of a histogram bucket, in seconds"},
}

// Metric is one metric of a proxy, or of a control plane.
type Metric struct {
	Name    string
	Type    string // counter, gauge, histogram
	Meaning string
	Labels  []string
}

func edgeLabels(more ...string) []string {
	return append([]string{"direction", "source", "destination", "port", "route", "backend", "protocol", "mtls"}, more...)
}

// Metrics answers every metric that a proxy has.
func Metrics() []Metric {
	return append([]Metric{
		{RequestsTotal, "counter", "Exchanges that ended.", edgeLabels("code", "grpc_status", "reason")},
		{RequestDuration, "histogram", "Time from the complete head of the request to the end of the response.", edgeLabels("le")},
		{TCPOpened, "counter", "Relayed TCP connections that began.", edgeLabels()},
		{TCPClosed, "counter", "Relayed TCP connections that ended.", edgeLabels("reason")},
		{TCPSent, "counter", "Bytes relayed from the caller to the server.", edgeLabels()},
		{TCPReceived, "counter", "Bytes relayed from the server to the caller.", edgeLabels()},
		{RefusedTotal, "counter", "Connections refused before anything was known of an exchange.", []string{"reason"}},
		{MirroredTotal, "counter", "Copies of requests, sent because a route has mirrors, that ended. They are in no other metric.", []string{"destination", "port", "code", "reason"}},
		{BreakerOverflows, "counter", "How often a cluster already had as much under way as its circuit breakers allow. Of `connections`, requests then wait for one that becomes free.", []string{"cluster", "priority", "bound"}},
		{RetriesTotal, "counter", "Further attempts at a cluster. Of more than 100 clusters those with the fewest are one, `other`.", []string{"cluster", "outcome"}},
		{RetryBudgetLeft, "gauge", "Further attempts that a cluster's budget allows now; of clusters with such a budget that were to be tried again.", []string{"cluster"}},
		{ClusterEndpoints, "gauge", "Endpoints of a cluster that checks their health or looks for outliers.", []string{"cluster", "health"}},
		{HealthChecks, "counter", "Health checks that ended.", []string{"cluster", "result"}},
		{Ejections, "counter", "How often outlier detection has ejected an endpoint.", []string{"cluster", "why"}},
		{AuthzDecisions, "counter", "What the workload's policies have decided about exchanges that ended and connections that began.", []string{"action", "verdict", "policy", "rule"}},
		{AuthzUnanswered, "counter", "Requests let through although their external authorizer has not answered, because the policy says failOpen.", []string{"policy", "rule"}},
		{RateLimited, "counter", "Requests and connections that a rate limit has refused, or would have.", []string{"at", "limit", "shadow"}},
		{Shed, "counter", "Requests that were sent away because there was too much to do.", []string{"at", "class"}},
		{AtWork, "gauge", "Requests at work, where their number is bounded.", []string{"at"}},
		{ConcurrencyLimit, "gauge", "How many may be at work at once, as learned from their latency.", []string{"at"}},
		{TLSHandshakes, "gauge", "TLS handshakes under way, of both sides.", []string{"state"}},
		{TLSHandshakesShed, "counter", "TLS handshakes that were given up to keep their number and time bounded.", []string{"shed"}},
		{SeriesOverflow, "counter", "Observations counted under `other` because the series budget was used up.", nil},
		{AccessLogDropped, "counter", "Lines of the access log dropped because its queue was full.", nil},
		{ControlConnected, "gauge", "1 while the control plane is reachable.", nil},
		{IdentityLeft, "gauge", "How long the workload's certificate is still valid, in seconds; negative: it has ended. An alarm below 30 % of its life.", nil},
		{IdentityFailed, "counter", "Renewals of the workload's certificate that failed.", nil},
		{TrustStage, "gauge", "Stage of the mesh's roots that the proxy believes (`tulle cert`).", nil},
		{ClockAhead, "gauge", "By how much the machine's clock is before the control plane's, in seconds; negative: behind it.", nil},
		{CaptureWorks, "gauge", "1 while the program's traffic goes through its proxy, as far as is tested; 0: an alarm.", nil},
		{CaptureFailed, "counter", "Checks whether the program's traffic goes through its proxy that failed.", nil},
	}, processMetrics()...)
}

// DurationBounds are the upper bounds of the classic buckets of RequestDuration, in seconds.
var DurationBounds = [...]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

// Field is one field of the JSON access log.
type Field struct{ Name, Meaning string }

// LogFields is every field of the access log, in order. Fields without a value are left out.
var LogFields = [...]Field{
	{"time", "when it began, RFC 3339 with microseconds, UTC"},
	{"direction", "as the label"},
	{"source", "as the label"},
	{"source_id", "SPIFFE ID of the caller"},
	{"destination", "as the label"},
	{"destination_id", "SPIFFE ID that the server proved"},
	{"port", "port of the destination"},
	{"wanted", "address that the program asked for"},
	{"protocol", "as the label"},
	{"mtls", "true or false"},
	{"method", "of the request"},
	{"authority", "Host or :authority"},
	{"path", "with its query"},
	{"status", "HTTP status"},
	{"grpc_status", "gRPC status"},
	{"reason", "why it failed"},
	{"refused_by", "the policy or rule that refused it where no AuthorizationPolicy did: about tokens, the port's mode, what is outside of the mesh"},
	{"refused_why", "likewise, the cause"},
	{"issuer", "that a token which is refused names"},
	{"authz", "what the workload's policies said: `allowed` or `denied`"},
	{"policy", "as the label"},
	{"policy_rule", "of it, that decided"},
	{"authorizer", "external authorizer that was asked, `name.namespace:port`"},
	{"authorizer_said", "`agreed`, `refused`, or `no answer`: refused, or let through by failOpen"},
	{"nearest", "of some denials for want of a rule: the one that came closest, and what was missing"},
	{"dry_run", "what would have been decided with the policies in dry run, where that is something else"},
	{"dry_run_policy", "by which policy"},
	{"dry_run_rule", "of it"},
	{"audit", "auditing policy of which a rule held"},
	{"audit_rule", "of it"},
	{"route", "as the label"},
	{"mirror", "true: a copy of a request, whose response nobody got"},
	{"rule", "index of the rule in its route"},
	{"backend", "the cluster chosen, `name.namespace:port`"},
	{"duration_ms", "from the complete head of the request to the end of the response"},
	{"head_ms", "likewise to the response's head"},
	{"request_bytes", "of the body; TCP: from the caller to the server"},
	{"response_bytes", "of the body; TCP: from the server to the caller"},
	{"attempts", "list: workload, address, from (out of how many it was picked), reason, ms"},
	{"more_attempts", "how many further attempts are not in the list"},
	{"request_id", "x-request-id"},
}
