package envoy

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// table is what is done with the fields of one message. Every other field is refused when it is set.
type table struct {
	run   string            // names, separated by spaces
	inert map[string]string // accepted without effect: why
	later string            // decoded, and refused until the engine runs them
}

// find reports whether a field is in the table, and why it has no effect if it has none.
func (t table) find(name string) (why string, ok bool) {
	if slices.Contains(strings.Fields(t.run), name) {
		return "", true
	}
	why, ok = t.inert[name]
	return why, ok
}

const (
	statOnly   = "names statistics; Tulle's have labels instead"
	nameOnly   = "only a name"
	noLimit    = "Tulle's own watermarks hold"
	forOthers  = "metadata is for others; no part of Tulle reads it"
	ownDefault = "Tulle always does that"
	noRuntime  = "there is no runtime; the default counts"
)

const (
	httpMessage = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	tlsMessage  = "envoy.extensions.transport_sockets.tls.v3."
	core        = "envoy.config.core.v3."
	clusterPkg  = "envoy.config.cluster.v3."
	routePkg    = "envoy.config.route.v3."
	limitPkg    = "envoy.extensions.filters.http."
	policyPkg   = "envoy.extensions.load_balancing_policies."
)

// fields says which fields are run. The reference (docs/reference/xds.md) is generated from it.
var fields = map[protoreflect.FullName]table{
	"envoy.config.bootstrap.v3.Bootstrap": {run: "node static_resources dynamic_resources admin",
		inert: map[string]string{"stats_flush_interval": "nothing is flushed", "stats_config": statOnly}},
	"envoy.config.bootstrap.v3.Bootstrap.StaticResources":  {run: "listeners clusters secrets"},
	"envoy.config.bootstrap.v3.Bootstrap.DynamicResources": {run: "lds_config cds_config ads_config"},
	"envoy.config.bootstrap.v3.Admin":                      {run: "address access_log", inert: map[string]string{"profile_path": "profiles are served by /debug/pprof"}},
	core + "Node": {run: "id cluster locality metadata",
		inert: map[string]string{"user_agent_name": nameOnly, "user_agent_version": nameOnly, "user_agent_build_version": nameOnly}},
	core + "ConfigSource":          {run: "ads resource_api_version initial_fetch_timeout"},
	core + "ApiConfigSource":       {run: "api_type transport_api_version grpc_services", inert: map[string]string{"set_node_on_first_message_only": ownDefault}},
	core + "GrpcService":           {run: "envoy_grpc initial_metadata", inert: map[string]string{"timeout": "the stream has no end"}},
	core + "GrpcService.EnvoyGrpc": {run: "cluster_name authority"},

	"envoy.config.listener.v3.Listener": {run: "name address additional_addresses listener_filters listener_filters_timeout continue_on_listener_filters_timeout filter_chains default_filter_chain access_log tcp_backlog_size",
		inert: map[string]string{"stat_prefix": statOnly, "per_connection_buffer_limit_bytes": noLimit, "traffic_direction": "no part of Tulle reads it", "enable_reuse_port": "all loops accept from one socket",
			"metadata": forOthers, "drain_type": "connections of a listener that goes are always drained"}},
	"envoy.config.listener.v3.AdditionalAddress":                        {run: "address"},
	"envoy.config.listener.v3.ListenerFilter":                           {run: "name typed_config"},
	"envoy.config.listener.v3.FilterChain":                              {run: "name filter_chain_match filters transport_socket transport_socket_connect_timeout", inert: map[string]string{"metadata": forOthers}},
	"envoy.config.listener.v3.FilterChainMatch":                         {run: "destination_port prefix_ranges server_names transport_protocol application_protocols direct_source_prefix_ranges source_type source_prefix_ranges source_ports"},
	"envoy.config.listener.v3.Filter":                                   {run: "name typed_config"},
	"envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector":   {run: "", inert: map[string]string{"initial_read_buffer_size": "the first bytes are only peeked at"}},
	"envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol": {run: "allow_requests_without_proxy_protocol disallowed_versions", inert: map[string]string{"stat_prefix": statOnly}},
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy": {run: "cluster weighted_clusters metadata_match hash_policy max_connect_attempts idle_timeout max_downstream_connection_duration access_log",
		inert: map[string]string{"stat_prefix": statOnly}},
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster":               {run: "clusters"},
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight": {run: "name weight metadata_match"},
	"envoy.type.v3.HashPolicy":          {run: "source_ip"},
	"envoy.type.v3.HashPolicy.SourceIp": {},

	httpMessage: {run: "codec_type rds route_config http_filters common_http_protocol_options http_protocol_options http2_protocol_options server_name server_header_transformation max_request_headers_kb stream_idle_timeout request_timeout request_headers_timeout drain_timeout access_log use_remote_address xff_num_trusted_hops skip_xff_append via generate_request_id preserve_external_request_id always_set_request_id_in_response forward_client_cert_details set_current_client_cert_details upgrade_configs normalize_path merge_slashes path_with_escaped_slashes_action strip_any_host_port",
		inert: map[string]string{"stat_prefix": statOnly, "delayed_close_timeout": "a connection that is refused is always read for a while before it is closed"}},
	httpMessage + ".UpgradeConfig":                                           {run: "upgrade_type enabled"},
	httpMessage + ".SetCurrentClientCertDetails":                             {run: "subject cert chain dns uri"},
	"envoy.extensions.filters.network.http_connection_manager.v3.Rds":        {run: "config_source route_config_name"},
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter": {run: "name typed_config"},
	"envoy.extensions.filters.http.router.v3.Router": {run: "", inert: map[string]string{"dynamic_stats": statOnly,
		"suppress_envoy_headers": "Tulle adds none of those headers", "start_child_span": "there are no spans yet"}},
	core + "HttpProtocolOptions":         {run: "idle_timeout max_connection_duration max_headers_count max_stream_duration headers_with_underscores_action max_requests_per_connection"},
	core + "UpstreamHttpProtocolOptions": {run: "auto_sni auto_san_validation"},
	core + "Http1ProtocolOptions": {run: "allow_absolute_url accept_http_10 default_host_for_http_10 header_key_format enable_trailers",
		inert: map[string]string{"override_stream_error_on_invalid_http_message": "a message that is not HTTP always ends its connection"}},
	core + "Http1ProtocolOptions.HeaderKeyFormat": {run: "stateful_formatter"},
	core + "Http2ProtocolOptions": {run: "hpack_table_size max_concurrent_streams initial_stream_window_size initial_connection_window_size allow_connect connection_keepalive",
		inert: map[string]string{"max_outbound_frames": noLimit, "max_outbound_control_frames": noLimit, "max_consecutive_inbound_frames_with_empty_payload": noLimit,
			"max_inbound_priority_frames_per_stream": noLimit, "max_inbound_window_update_frames_per_data_frame_sent": noLimit, "override_stream_error_on_invalid_http_message": "RFC 9113 decides"}},
	core + "KeepaliveSettings":           {run: "interval timeout"},
	core + "HeaderValue":                 {run: "key value"},
	core + "Locality":                    {run: "region zone sub_zone"},
	core + "AggregatedConfigSource":      {},
	core + "WatchedDirectory":            {run: "path"},
	core + "TypedExtensionConfig":        {run: "typed_config", inert: map[string]string{"name": nameOnly}},
	core + "TcpKeepalive":                {},
	core + "HealthCheck.Payload":         {run: "text binary"},
	"envoy.type.v3.Percent":              {run: "value"},
	"envoy.type.v3.FractionalPercent":    {run: "numerator denominator"},
	"envoy.type.v3.Int64Range":           {run: "start end"},
	"envoy.type.matcher.v3.RegexMatcher": {run: "regex", inert: map[string]string{"google_re2": "RE2 is the only engine there is; programs are bounded by the size of the text"}},
	"envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig": {inert: map[string]string{"forward_reason_phrase": "reason phrases are kept from one HTTP/1.1 hop to the next"}},
	"envoy.extensions.filters.http.grpc_web.v3.GrpcWeb":                                    {},
	"envoy.extensions.filters.listener.original_dst.v3.OriginalDst":                        {},
	"envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer":                           {},
	"envoy.extensions.access_loggers.stream.v3.StdoutAccessLog":                            {run: "log_format"},
	"envoy.extensions.access_loggers.stream.v3.StderrAccessLog":                            {run: "log_format"},

	tlsMessage + "DownstreamTlsContext":                                  {run: "common_tls_context require_client_certificate disable_stateless_session_resumption"},
	tlsMessage + "UpstreamTlsContext":                                    {run: "common_tls_context sni auto_host_sni auto_sni_san_validation max_session_keys"},
	tlsMessage + "CommonTlsContext":                                      {run: "tls_params tls_certificates tls_certificate_sds_secret_configs validation_context validation_context_sds_secret_config combined_validation_context alpn_protocols"},
	tlsMessage + "CommonTlsContext.CombinedCertificateValidationContext": {run: "default_validation_context validation_context_sds_secret_config"},
	tlsMessage + "TlsParameters":                                         {run: "tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves"},
	tlsMessage + "TlsCertificate":                                        {run: "certificate_chain private_key watched_directory"},
	tlsMessage + "SdsSecretConfig":                                       {run: "name sds_config"},
	tlsMessage + "CertificateValidationContext":                          {run: "trusted_ca watched_directory verify_certificate_spki verify_certificate_hash match_typed_subject_alt_names crl allow_expired_certificate trust_chain_verification system_root_certs"},
	tlsMessage + "CertificateValidationContext.SystemRootCerts":          {},
	tlsMessage + "SubjectAltNameMatcher":                                 {run: "san_type matcher"},
	tlsMessage + "Secret":                                                {run: "name tls_certificate validation_context"},

	"envoy.config.accesslog.v3.AccessLog":                   {run: "typed_config", inert: map[string]string{"name": nameOnly}},
	"envoy.extensions.access_loggers.file.v3.FileAccessLog": {run: "path format json_format typed_json_format log_format"},
	core + "SubstitutionFormatString":                       {run: "text_format text_format_source json_format omit_empty_values", inert: map[string]string{"content_type": "a log has none"}},
	core + "DataSource":                                     {run: "filename inline_bytes inline_string"},
	core + "Address":                                        {run: "socket_address"},
	core + "SocketAddress":                                  {run: "protocol address port_value"},
	core + "CidrRange":                                      {run: "address_prefix prefix_len"},
	core + "TransportSocket":                                {run: "name typed_config"},
	"envoy.type.matcher.v3.StringMatcher":                   {run: "exact prefix suffix contains safe_regex ignore_case"},

	limitPkg + "local_ratelimit.v3.LocalRateLimit": {run: "status token_bucket filter_enabled filter_enforced", inert: map[string]string{"stat_prefix": statOnly,
		"rate_limited_as_resource_exhausted": "gRPC calls always hear RESOURCE_EXHAUSTED"}},
	limitPkg + "ratelimit.v3.RateLimit": {run: "domain timeout failure_mode_deny rate_limit_service", inert: map[string]string{"stat_prefix": statOnly,
		"rate_limited_as_resource_exhausted": "gRPC calls always hear RESOURCE_EXHAUSTED"}},
	"envoy.config.ratelimit.v3.RateLimitServiceConfig":                                              {run: "grpc_service transport_api_version"},
	limitPkg + "adaptive_concurrency.v3.AdaptiveConcurrency":                                        {run: "gradient_controller_config enabled"},
	limitPkg + "adaptive_concurrency.v3.GradientControllerConfig":                                   {run: "concurrency_limit_params min_rtt_calc_params", inert: map[string]string{"sample_aggregate_percentile": "the mean is looked at"}},
	limitPkg + "adaptive_concurrency.v3.GradientControllerConfig.ConcurrencyLimitCalculationParams": {run: "max_concurrency_limit concurrency_update_interval"},
	limitPkg + "adaptive_concurrency.v3.GradientControllerConfig.MinimumRTTCalculationParams":       {run: "interval min_concurrency buffer", inert: map[string]string{"request_count": "ten, at least, are enough to see a queue", "jitter": ownDefault}},
	"envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit":                            {run: "token_bucket runtime_enabled", inert: map[string]string{"stat_prefix": statOnly}},
	"envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit":                          {run: "max_connections runtime_enabled", inert: map[string]string{"stat_prefix": statOnly}},
	core + "RuntimeFeatureFlag":                      {run: "default_value", inert: map[string]string{"runtime_key": noRuntime}},
	"envoy.type.v3.TokenBucket":                      {run: "max_tokens tokens_per_fill fill_interval"},
	"envoy.type.v3.HttpStatus":                       {run: "code"},
	routePkg + "RateLimit":                           {run: "actions"},
	routePkg + "RateLimit.Action":                    {run: "request_headers remote_address destination_cluster generic_key header_value_match"},
	routePkg + "RateLimit.Action.RequestHeaders":     {run: "header_name descriptor_key skip_if_absent"},
	routePkg + "RateLimit.Action.RemoteAddress":      {},
	routePkg + "RateLimit.Action.DestinationCluster": {},
	routePkg + "RateLimit.Action.GenericKey":         {run: "descriptor_value descriptor_key"},
	routePkg + "RateLimit.Action.HeaderValueMatch":   {run: "descriptor_value descriptor_key expect_match headers"},

	routePkg + "RouteConfiguration": {run: "name virtual_hosts request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove ignore_port_in_host_matching validate_clusters typed_per_filter_config request_mirror_policies",
		inert: map[string]string{"metadata": forOthers}},
	routePkg + "VirtualHost": {run: "name domains routes request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove typed_per_filter_config request_mirror_policies retry_policy hedge_policy rate_limits", inert: map[string]string{"metadata": forOthers}},
	routePkg + "Route": {run: "name match route redirect direct_response typed_per_filter_config request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove",
		inert: map[string]string{"metadata": forOthers, "stat_prefix": statOnly, "decorator": "there are no spans yet"}},
	routePkg + "RouteMatch.GrpcRouteMatchOptions":            {},
	routePkg + "RouteMatch.ConnectMatcher":                   {},
	routePkg + "RouteAction.HashPolicy.ConnectionProperties": {run: "source_ip"},
	routePkg + "RouteAction.HashPolicy.QueryParameter":       {run: "name"},
	routePkg + "RouteMatch":                                  {run: "prefix path path_separated_prefix safe_regex connect_matcher case_sensitive runtime_fraction headers query_parameters grpc"},
	routePkg + "HeaderMatcher":                               {run: "name present_match range_match string_match invert_match"},
	routePkg + "QueryParameterMatcher":                       {run: "name string_match present_match"},
	routePkg + "DirectResponseAction":                        {run: "status body"},
	core + "RuntimeFractionalPercent":                        {run: "default_value", inert: map[string]string{"runtime_key": noRuntime}},
	core + "HeaderValueOption":                               {run: "header append_action keep_empty_value"},
	routePkg + "RouteAction":                                 {run: "cluster weighted_clusters cluster_header metadata_match prefix_rewrite regex_rewrite request_mirror_policies host_rewrite_literal auto_host_rewrite append_x_forwarded_host timeout idle_timeout hash_policy upgrade_configs max_stream_duration priority retry_policy hedge_policy rate_limits include_vh_rate_limits"},
	routePkg + "RouteAction.UpgradeConfig":                   {run: "upgrade_type enabled"},
	routePkg + "RouteAction.MaxStreamDuration":               {run: "max_stream_duration grpc_timeout_header_max grpc_timeout_header_offset"},
	routePkg + "RouteAction.HashPolicy":                      {run: "header cookie connection_properties query_parameter terminal"},
	routePkg + "RouteAction.HashPolicy.Header":               {run: "header_name"},
	routePkg + "RouteAction.HashPolicy.Cookie":               {run: "name ttl path"},
	routePkg + "WeightedCluster":                             {run: "clusters", inert: map[string]string{"total_weight": "the sum of the weights counts"}},
	routePkg + "WeightedCluster.ClusterWeight":               {run: "name weight metadata_match request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove"},

	routePkg + "RedirectAction":                                                 {run: "https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite regex_rewrite response_code strip_query"},
	routePkg + "RouteAction.RequestMirrorPolicy":                                {run: "cluster runtime_fraction disable_shadow_host_suffix_append", inert: map[string]string{"trace_sampled": "there are no spans yet"}},
	routePkg + "FilterConfig":                                                   {run: "config disabled", inert: map[string]string{"is_optional": "a filter that Tulle does not have is refused all the same"}},
	"envoy.type.matcher.v3.RegexMatchAndSubstitute":                             {run: "pattern substitution"},
	"envoy.type.http.v3.Cookie":                                                 {run: "name ttl path"},
	"envoy.extensions.filters.http.cors.v3.Cors":                                {},
	"envoy.extensions.filters.http.cors.v3.CorsPolicy":                          {run: "allow_origin_string_match allow_methods allow_headers expose_headers max_age allow_credentials filter_enabled forward_not_matching_preflights"},
	"envoy.extensions.filters.http.fault.v3.HTTPFault":                          {run: "delay abort headers response_rate_limit", inert: map[string]string{"disable_downstream_cluster_stats": statOnly}},
	"envoy.extensions.filters.http.fault.v3.FaultAbort":                         {run: "http_status grpc_status percentage"},
	"envoy.extensions.filters.common.fault.v3.FaultDelay":                       {run: "fixed_delay percentage"},
	"envoy.extensions.filters.common.fault.v3.FaultRateLimit":                   {run: "fixed_limit percentage"},
	"envoy.extensions.filters.common.fault.v3.FaultRateLimit.FixedLimit":        {run: "limit_kbps"},
	"envoy.extensions.filters.http.stateful_session.v3.StatefulSession":         {run: "session_state"},
	"envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute": {run: "disabled stateful_session"},
	"envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState":  {run: "cookie"},
	"envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState":  {run: "name"},

	routePkg + "RetryPolicy":                                               {run: "retry_on num_retries per_try_timeout retry_host_predicate retriable_status_codes retry_back_off rate_limited_retry_back_off host_selection_retry_max_attempts"},
	routePkg + "RetryPolicy.RetryHostPredicate":                            {run: "typed_config", inert: map[string]string{"name": nameOnly}},
	routePkg + "RetryPolicy.RetryBackOff":                                  {run: "base_interval max_interval"},
	routePkg + "RetryPolicy.RateLimitedRetryBackOff":                       {run: "reset_headers max_interval"},
	routePkg + "RetryPolicy.ResetHeader":                                   {run: "name format"},
	routePkg + "HedgePolicy":                                               {run: "hedge_on_per_try_timeout"},
	"envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate": {},
	clusterPkg + "CircuitBreakers.Thresholds.RetryBudget":                  {run: "budget_percent min_retry_concurrency"},

	clusterPkg + "Cluster": {run: "name type eds_cluster_config connect_timeout lb_policy load_assignment max_requests_per_connection http2_protocol_options typed_extension_protocol_options dns_refresh_rate respect_dns_ttl dns_lookup_family ring_hash_lb_config maglev_lb_config least_request_lb_config common_lb_config round_robin_lb_config lb_subset_config load_balancing_policy metadata original_dst_lb_config cleanup_interval transport_socket upstream_connection_options circuit_breakers health_checks outlier_detection close_connections_on_host_health_failure",
		inert: map[string]string{"alt_stat_name": statOnly, "per_connection_buffer_limit_bytes": noLimit, "ignore_health_on_host_removal": ownDefault}},
	clusterPkg + "UpstreamConnectionOptions":                       {run: "tcp_keepalive"},
	clusterPkg + "Cluster.EdsClusterConfig":                        {run: "eds_config service_name"},
	clusterPkg + "Cluster.LeastRequestLbConfig":                    {run: "choice_count slow_start_config"},
	clusterPkg + "Cluster.RingHashLbConfig":                        {run: "minimum_ring_size maximum_ring_size"},
	clusterPkg + "Cluster.MaglevLbConfig":                          {run: "table_size"},
	clusterPkg + "Cluster.OriginalDstLbConfig":                     {run: "use_http_header http_header_name upstream_port_override"},
	clusterPkg + "Cluster.CommonLbConfig":                          {run: "healthy_panic_threshold locality_weighted_lb_config"},
	clusterPkg + "Cluster.CommonLbConfig.LocalityWeightedLbConfig": {},
	clusterPkg + "Cluster.RoundRobinLbConfig":                      {run: "slow_start_config"},
	clusterPkg + "Cluster.SlowStartConfig":                         {run: "slow_start_window aggression min_weight_percent"},
	clusterPkg + "Cluster.LbSubsetConfig":                          {run: "fallback_policy default_subset subset_selectors"},
	clusterPkg + "Cluster.LbSubsetConfig.LbSubsetSelector":         {run: "keys"},
	clusterPkg + "LoadBalancingPolicy":                             {run: "policies"},
	clusterPkg + "LoadBalancingPolicy.Policy":                      {run: "typed_extension_config"},
	policyPkg + "round_robin.v3.RoundRobin":                        {run: "slow_start_config locality_lb_config"},
	policyPkg + "least_request.v3.LeastRequest":                    {run: "choice_count slow_start_config locality_lb_config selection_method"},
	policyPkg + "random.v3.Random":                                 {run: "locality_lb_config"},
	policyPkg + "ring_hash.v3.RingHash":                            {run: "hash_function minimum_ring_size maximum_ring_size locality_weighted_lb_config"},
	policyPkg + "maglev.v3.Maglev":                                 {run: "table_size locality_weighted_lb_config"},
	policyPkg + "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin": {run: "enable_oob_load_report blackout_period weight_expiration_period weight_update_period error_utilization_penalty",
		inert: map[string]string{"oob_reporting_period": "reports are read in responses"}},
	policyPkg + "wrr_locality.v3.WrrLocality":                                             {run: "endpoint_picking_policy"},
	policyPkg + "common.v3.SlowStartConfig":                                               {run: "slow_start_window aggression min_weight_percent"},
	policyPkg + "common.v3.LocalityLbConfig":                                              {run: "locality_weighted_lb_config"},
	policyPkg + "common.v3.LocalityLbConfig.LocalityWeightedLbConfig":                     {},
	core + "RuntimeDouble":                                                                {run: "default_value", inert: map[string]string{"runtime_key": "nothing is changed at run time: default_value holds"}},
	core + "Metadata":                                                                     {run: "filter_metadata", inert: map[string]string{"typed_filter_metadata": forOthers}},
	clusterPkg + "CircuitBreakers":                                                        {run: "thresholds"},
	clusterPkg + "CircuitBreakers.Thresholds":                                             {run: "priority max_connections max_pending_requests max_requests max_retries retry_budget", inert: map[string]string{"track_remaining": statOnly}},
	clusterPkg + "OutlierDetection":                                                       {run: "consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx enforcing_success_rate success_rate_minimum_hosts success_rate_request_volume success_rate_stdev_factor consecutive_gateway_failure enforcing_consecutive_gateway_failure split_external_local_origin_errors consecutive_local_origin_failure enforcing_consecutive_local_origin_failure failure_percentage_threshold enforcing_failure_percentage failure_percentage_minimum_hosts failure_percentage_request_volume max_ejection_time max_ejection_time_jitter enforcing_local_origin_success_rate enforcing_failure_percentage_local_origin successful_active_health_check_uneject_host always_eject_one_host"},
	core + "HealthCheck":                                                                  {run: "timeout interval interval_jitter unhealthy_threshold healthy_threshold alt_port reuse_connection no_traffic_interval unhealthy_interval http_health_check tcp_health_check grpc_health_check", inert: map[string]string{"name": nameOnly}},
	core + "HealthCheck.HttpHealthCheck":                                                  {run: "host path method expected_statuses request_headers_to_add codec_client_type"},
	core + "HealthCheck.TcpHealthCheck":                                                   {run: "send receive"},
	core + "HealthCheck.GrpcHealthCheck":                                                  {run: "service_name authority"},
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":                              {run: "common_http_protocol_options upstream_http_protocol_options explicit_http_config use_downstream_protocol_config auto_config"},
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig":           {run: "http_protocol_options http2_protocol_options"},
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig":      {run: "http_protocol_options http2_protocol_options"},
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig":               {run: "http_protocol_options http2_protocol_options"},
	"envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport": {run: "config transport_socket"},
	core + "ProxyProtocolConfig":                                                          {run: "version"},
	"envoy.config.endpoint.v3.ClusterLoadAssignment":                                      {run: "cluster_name endpoints policy"},
	"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy":                               {run: "overprovisioning_factor"},
	"envoy.config.endpoint.v3.LocalityLbEndpoints":                                        {run: "locality lb_endpoints priority load_balancing_weight", inert: map[string]string{"metadata": forOthers}},
	"envoy.config.endpoint.v3.LbEndpoint":                                                 {run: "endpoint health_status load_balancing_weight metadata"},
	"envoy.config.endpoint.v3.Endpoint":                                                   {run: "address hostname health_check_config"},
	"envoy.config.endpoint.v3.Endpoint.HealthCheckConfig":                                 {run: "port_value"},
}

// limits says where less is run than a field can say, for the reference.
var limits = []string{
	"One network filter a chain, `http_connection_manager` or `tcp_proxy`, and before it `local_ratelimit` and `connection_limit`; HTTP filters are `cors`, `fault`, `stateful_session`, `local_ratelimit`, `ratelimit`, `adaptive_concurrency` and `grpc_web`, at most one of each, and, last, `router`. Whatever their order in the chain, they run in this one.",
	"Listener filters are `tls_inspector`, `proxy_protocol` and `original_dst`; transport sockets are `raw_buffer`, `tls` and, of a cluster, `upstream_proxy_protocol`.",
	"Cluster types are `STATIC`, `STRICT_DNS`, `LOGICAL_DNS`, `EDS` (of the cluster's own name) and `ORIGINAL_DST`; policies are `ROUND_ROBIN`, `LEAST_REQUEST`, `RANDOM`, `RING_HASH`, `MAGLEV` and, of `ORIGINAL_DST`, `CLUSTER_PROVIDED`.",
	"Of `load_balancing_policy` the first policy of the list that is run holds: `round_robin`, `least_request` (`N_CHOICES`), `random`, `ring_hash` (xxHash), `maglev`, `client_side_weighted_round_robin` (reports in responses), `wrr_locality` around one of these, and a `xds.type.v3.TypedStruct` of `tulle.v1.Balancing`, which other proxies pass over; beside it the older fields of balancing are refused.",
	"Slow start holds back who is new also with `RANDOM`; ages count from the first request after an endpoint has come, or has become well again. Unlike Envoy's, `LEAST_REQUEST` looks at requests under way also where weights differ.",
	"Of `lb_subset_config` `NO_FALLBACK`, `ANY_ENDPOINT` and `DEFAULT_SUBSET` are run; `metadata_match` and the metadata of endpoints are `envoy.lb` with text, numbers and truth values, compared as text. A cluster without `lb_subset_config` does not look at `metadata_match`.",
	"Metadata of a cluster under `tulle.v1` says what Envoy has no field for: `ejection: {probe: true, latency: {factor: 3, least: 10ms, hosts: 3, requests: 20}}`; other metadata of a cluster is for others.",
	"Token buckets fill continuously, not once in `fill_interval`; requests that are refused hear `x-envoy-ratelimited: true`. `adaptive_concurrency` finds its limit in Tulle's own way (docs/design/overload.md) within the bounds given; `buffer` counts where it is more than 50 %. Of `rate_limits` the actions are `request_headers`, `remote_address`, `destination_cluster`, `generic_key` and `header_value_match` (without `expect_match` of one header); stages and `disable_key` are refused.",
	"Dynamic configuration comes over the one aggregated stream (`ads: {}`), `GRPC` or `DELTA_GRPC`, from one `envoy_grpc` service.",
	"What `typed_per_filter_config` says is found by its type, not by the filter's name (`disabled` by the usual name); that of clusters of `weighted_clusters` is refused. The nearest of route, virtual host and route configuration counts.",
	"`cors`: responses say `Vary: Origin`; a list of `*` alone is what the preflight asked for where credentials are allowed, as browsers take `*` for a name then; `filter_enabled` is all or none of the requests.",
	"`fault`: `grpc_status` is, to clients that do not speak gRPC, the HTTP status that it is like (Envoy says 200); delays are within the route's `timeout`, as a slow server's would be; the response says `tulle-reason: fault_injected`.",
	"`stateful_session`: the value is Tulle's own and names no address; one of Envoy's begins a new session.",
	"A mirrored request is tried once and given up when more of its body comes while 64 KiB wait; requests that want to switch protocols are not mirrored.",
	"Access logs are written to files and to the standard streams, without filters.",
	"Header values that are added are text: command operators are refused; `append_action` is `APPEND_IF_EXISTS_OR_ADD` or `OVERWRITE_IF_EXISTS_OR_ADD`.",
	"`cipher_suites` are those of crypto/tls with ECDHE, by their IANA or OpenSSL names; `ecdh_curves` are X25519MLKEM768, X25519, P-256, P-384 and P-521, in crypto/tls' order.",
	"Fields of connections and framing (`content-length`, `transfer-encoding`, `connection`, `te` and the like) are neither added nor removed: refused.",
	"An inline route to a cluster that is not in the file is refused, unless `validate_clusters` is false or there are `dynamic_resources`; then it answers 503.",
	"`initial_fetch_timeout` is run in `lds_config` and `cds_config` only, for everything; the later of them counts.",
	"A secret with a validation context has `trusted_ca` and `crl` only; names and pins stand in `default_validation_context`.",
	"`ORIGINAL_DST` needs the listener filter `original_dst` (or `proxy_protocol`, whose headers are believed), or `use_http_header`, which lets whoever sends requests choose where they go: take the header out, or let nobody reach the listener, where that must not be. A header that is not one IP address with its port, once, is 503; Envoy falls back to the connection's address. A connection that nobody has turned to the listener goes nowhere. At most 16384 addresses are known at a time.",
	"A cluster has one health check at most. Checks name themselves `Tulle/HC`. What servers say in `x-envoy-degraded` and `x-envoy-immediate-health-check-fail` is not read. A connection that a server ends while it is idle is no failure for outlier detection.",
	"`header_key_format` is always in force: from one HTTP/1.1 hop to the next header names keep their case, which Envoy makes lower without it. In `http_protocol_options` of a cluster, so is `enable_trailers`, and the rest has no meaning and is refused.",
	"No client is internal: fields `x-envoy-*` that Envoy takes out of other clients' requests are taken out, with `use_remote_address` also those that only a first proxy may say, and `x-envoy-external-address` is set. `x-envoy-upstream-service-time`, `x-envoy-expected-rq-timeout-ms` and `x-envoy-original-host` are not added; a request's own `x-envoy-upstream-rq-timeout-ms`, `x-envoy-retry-on` and the like have no effect.",
	"Responses made here say why in `tulle-reason` and in a line of text; where an upstream's connection or TLS fails after it stood the status is 502, where Envoy says 503.",
	"Field names and reason phrases stay as they are from one HTTP/1.1 hop to the next, also without `header_key_format`. Query parameters are compared with what their percent-encoding means.",
	"A client that ends its direction, or its connection, may be waiting for the response: the request goes on until nothing was sent for three seconds. A route without a name has its virtual host's in `%ROUTE_NAME%`.",
	"Bounds of 0 in `circuit_breakers` are refused. A request that waits for a connection that is being made for it is not one of `max_pending_requests`, as it is in Envoy: so many may wait besides those. `max_retries` also bounds the attempts that are made by themselves after a connection failed; its default of 3 does not. `retry_budget` is one for both priorities, in whole percent. `hpack_table_size` of 0 is refused.",
	"What has surely not reached a server (no connection, a refused stream) is sent again without a `retry_policy` too, at most five times, and elsewhere. A `retry_policy` sends requests of any method again, as Envoy does; bodies of more than 64 KiB are not kept for that. `retry_on` is run but for `retriable-headers`, `envoy-ratelimited` and `http3-post-connect-failure`; `num_retries` is at most 100. `per_try_timeout` runs from the choice of the endpoint. A response whose reset header asks for more than `max_interval`, and one after which the wait would last beyond the route's `timeout`, goes to the client; Envoy waits its own time. With `previous_hosts` every other endpoint is looked for, whatever `host_selection_retry_max_attempts` says.",
}
