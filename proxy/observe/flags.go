package observe

import "github.com/tulle-mesh/tulle/proxy/failure"

// flag is how Envoy names a way to fail.
type flag struct{ short, long, details string }

// flags of the reasons that have one.
var flags = map[failure.Reason]flag{
	failure.BadRequest:        {"DPE", "DownstreamProtocolError", "http1.codec_error"},
	failure.HeadTooLarge:      {"DPE", "DownstreamProtocolError", "request_headers_too_large"},
	failure.NotHTTP:           {"DPE", "DownstreamProtocolError", "http1.codec_error"},
	failure.NoRoute:           {"NR", "NoRouteFound", "route_not_found"},
	failure.NoBackend:         {"NC", "NoClusterFound", "cluster_not_found"},
	failure.UnknownService:    {"NC", "NoClusterFound", "cluster_not_found"},
	failure.NoEndpoint:        {"UH", "NoHealthyUpstream", "no_healthy_upstream"},
	failure.ConnectFailed:     {"UF", "UpstreamConnectionFailure", "upstream_reset_before_response_started{remote_connection_failure}"},
	failure.ConnectTimeout:    {"UF", "UpstreamConnectionFailure", "upstream_reset_before_response_started{connection_timeout}"},
	failure.TLSFailed:         {"UF", "UpstreamConnectionFailure", "upstream_reset_before_response_started{remote_connection_failure}"},
	failure.PeerIdentity:      {"UF", "UpstreamConnectionFailure", "upstream_reset_before_response_started{remote_connection_failure}"},
	failure.UpstreamReset:     {"UC", "UpstreamConnectionTermination", "upstream_reset_before_response_started{connection_termination}"},
	failure.UpstreamProtocol:  {"UPE", "UpstreamProtocolError", "upstream_reset_before_response_started{protocol_error}"},
	failure.RefusedStream:     {"UR", "UpstreamRemoteReset", "upstream_reset_before_response_started{remote_refused_stream_reset}"},
	failure.RequestTimeout:    {"UT", "UpstreamRequestTimeout", "response_timeout"},
	failure.AttemptTimeout:    {"UT", "UpstreamRequestTimeout", "upstream_per_try_timeout"},
	failure.IdleTimeout:       {"SI", "StreamIdleTimeout", "stream_idle_timeout"},
	failure.DownstreamGone:    {"DC", "DownstreamConnectionTermination", "downstream_remote_disconnect"},
	failure.Overload:          {"UO", "UpstreamOverflow", "upstream_reset_before_response_started{overflow}"},
	failure.Overflow:          {"UO", "UpstreamOverflow", "upstream_reset_before_response_started{overflow}"},
	failure.Unavailable:       {"NC", "NoClusterFound", "cluster_not_found"},
	failure.TargetTooLong:     {"DPE", "DownstreamProtocolError", "request_headers_too_large"},
	failure.OldHTTP:           {"", "", "low_version"},
	failure.UpgradeRefused:    {"", "", "upgrade_failed"},
	failure.UpgradeDeclined:   {"UPE", "UpstreamProtocolError", "upgrade_declined"},
	failure.UnknownCluster:    {"NC", "NoClusterFound", "cluster_not_found"},
	failure.RequestIncomplete: {"", "", "request_overall_timeout"},
	failure.EndpointUnhealthy: {"UC", "UpstreamConnectionTermination", "upstream_reset_after_response_started{connection_termination}"},
	failure.StreamDuration:    {"DT", "DurationTimeout", "max_duration_timeout"},
	failure.Deadline:          {"UT", "UpstreamRequestTimeout", "response_timeout"},
	failure.FaultInjected:     {"FI", "FaultInjected", "fault_filter_abort"},
	failure.Draining:          {"", "", "draining"},
	failure.Internal:          {"LR", "LocalReset", "internal_error"},
}

// flagOf answers the flag of a reason's label; of none that has no flag.
func flagOf(label string) flag {
	if label == "" {
		return flag{}
	}
	reason, _ := failure.ParseReason(label)
	return flags[reason]
}

// details answers why the response is what it is.
func (e *Entry) details() string {
	switch {
	case e.Details != "":
		return e.Details
	case e.Record.Reason != "":
		return flagOf(e.Record.Reason).details
	case e.Record.TCP:
		return ""
	}
	return "via_upstream"
}
