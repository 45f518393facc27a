package envoy

import (
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	webv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	casev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/tulle-mesh/tulle/model"
)

func decodeHTTP(path string, m *hcmv3.HttpConnectionManager) (*model.HTTP, error) {
	h := &model.HTTP{StatPrefix: m.GetStatPrefix(), ServerName: orText(m.GetServerName(), "envoy"), Via: m.GetVia(),
		UseRemoteAddress: m.GetUseRemoteAddress().GetValue(), XFFTrustedHops: m.GetXffNumTrustedHops(), SkipXFFAppend: m.GetSkipXffAppend(),
		RequestID: boolOr(m.GetGenerateRequestId(), true), KeepRequestID: m.GetPreserveExternalRequestId(), RequestIDResponse: m.GetAlwaysSetRequestIdInResponse(),
		NormalizePath: m.GetNormalizePath().GetValue(), MergeSlashes: m.GetMergeSlashes(), StripAnyHostPort: m.GetStripAnyHostPort(),
		MaxHead: int(numberOr(m.GetMaxRequestHeadersKb(), 60)) << 10, MaxFields: 100}
	if n := m.GetMaxRequestHeadersKb(); n != nil && (n.GetValue() == 0 || n.GetValue() > 8192) {
		return nil, refuse(join(path, "max_request_headers_kb"), "%d is not from 1 to 8192", n.GetValue())
	}
	if err := httpEnums(path, m, h); err != nil {
		return nil, err
	}
	err := durations(path, []durationField{
		{&h.HeadTimeout, "request_headers_timeout", m.GetRequestHeadersTimeout(), 0},
		{&h.RequestTimeout, "request_timeout", m.GetRequestTimeout(), 0},
		{&h.StreamIdleTimeout, "stream_idle_timeout", m.GetStreamIdleTimeout(), 5 * time.Minute},
		{&h.DrainTimeout, "drain_timeout", m.GetDrainTimeout(), 5 * time.Second},
	})
	if err != nil {
		return nil, err
	}
	if err := httpCommon(join(path, "common_http_protocol_options"), m.GetCommonHttpProtocolOptions(), h); err != nil {
		return nil, err
	}
	if h.HTTP1, err = http1Options(join(path, "http_protocol_options"), m.GetHttpProtocolOptions()); err != nil {
		return nil, err
	}
	if h.HTTP2, err = http2Options(join(path, "http2_protocol_options"), m.GetHttp2ProtocolOptions()); err != nil {
		return nil, err
	}
	if err := httpRoutes(path, m, h); err != nil {
		return nil, err
	}
	for _, u := range m.GetUpgradeConfigs() {
		if boolOr(u.GetEnabled(), true) {
			h.Upgrades = append(h.Upgrades, strings.ToLower(u.GetUpgradeType()))
		}
	}
	if err := httpFilters(join(path, "http_filters"), m.GetHttpFilters(), h); err != nil {
		return nil, err
	}
	h.AccessLogs, err = accessLogs(join(path, "access_log"), m.GetAccessLog())
	return h, err
}

func httpEnums(path string, m *hcmv3.HttpConnectionManager, h *model.HTTP) error {
	switch m.GetCodecType() {
	case hcmv3.HttpConnectionManager_AUTO:
	case hcmv3.HttpConnectionManager_HTTP1:
		h.Codec = model.CodecHTTP1
	case hcmv3.HttpConnectionManager_HTTP2:
		h.Codec = model.CodecHTTP2
	default:
		return refuse(join(path, "codec_type"), "%s %s", m.GetCodecType(), notRun)
	}
	h.ServerHeader = map[hcmv3.HttpConnectionManager_ServerHeaderTransformation]model.ServerHeader{
		hcmv3.HttpConnectionManager_APPEND_IF_ABSENT: model.ServerAppendIfAbsent, hcmv3.HttpConnectionManager_PASS_THROUGH: model.ServerPassThrough}[m.GetServerHeaderTransformation()]
	h.XFCC = map[hcmv3.HttpConnectionManager_ForwardClientCertDetails]model.XFCC{hcmv3.HttpConnectionManager_FORWARD_ONLY: model.XFCCForwardOnly,
		hcmv3.HttpConnectionManager_APPEND_FORWARD: model.XFCCAppendForward, hcmv3.HttpConnectionManager_SANITIZE_SET: model.XFCCSanitizeSet,
		hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY: model.XFCCAlwaysForwardOnly}[m.GetForwardClientCertDetails()]
	if d := m.GetSetCurrentClientCertDetails(); d != nil {
		h.XFCCDetails = model.XFCCDetails{Subject: d.GetSubject().GetValue(), Cert: d.GetCert(), Chain: d.GetChain(), DNS: d.GetDns(), URI: d.GetUri()}
	}
	switch m.GetPathWithEscapedSlashesAction() {
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		h.EscapedSlashes = model.EscapedReject
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		h.EscapedSlashes = model.EscapedRedirect
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		h.EscapedSlashes = model.EscapedForward
	}
	return nil
}

// httpCommon reads what both sides share; of a listener.
func httpCommon(path string, m *corev3.HttpProtocolOptions, h *model.HTTP) error {
	if m.GetHeadersWithUnderscoresAction() != corev3.HttpProtocolOptions_ALLOW {
		return refuse(join(path, "headers_with_underscores_action"), "%s %s", m.GetHeadersWithUnderscoresAction(), notRun)
	}
	if n := m.GetMaxHeadersCount(); n != nil && n.GetValue() == 0 {
		return refuse(join(path, "max_headers_count"), "is 0")
	}
	h.MaxFields = int(numberOr(m.GetMaxHeadersCount(), 100))
	h.MaxRequests = m.GetMaxRequestsPerConnection().GetValue()
	return durations(path, []durationField{
		{&h.IdleTimeout, "idle_timeout", m.GetIdleTimeout(), time.Hour},
		{&h.MaxDuration, "max_connection_duration", m.GetMaxConnectionDuration(), 0},
		{&h.MaxStreamDuration, "max_stream_duration", m.GetMaxStreamDuration(), 0},
	})
}

func http1Options(path string, m *corev3.Http1ProtocolOptions) (model.HTTP1Options, error) {
	o := model.HTTP1Options{AcceptHTTP10: m.GetAcceptHttp_10(), DefaultHost: m.GetDefaultHostForHttp_10(), AllowTrailers: m.GetEnableTrailers(),
		AbsoluteURL: boolOr(m.GetAllowAbsoluteUrl(), true)}
	if f := m.GetHeaderKeyFormat(); f != nil {
		p := join(path, "header_key_format")
		o.PreserveCase = true
		if err := unpack(join(p, "stateful_formatter.typed_config"), f.GetStatefulFormatter().GetTypedConfig(), &casev3.PreserveCaseFormatterConfig{}); err != nil {
			return o, err
		}
	}
	return o, nil
}

func http2Options(path string, m *corev3.Http2ProtocolOptions) (model.HTTP2Options, error) {
	o := model.HTTP2Options{MaxStreams: m.GetMaxConcurrentStreams().GetValue(), Window: m.GetInitialStreamWindowSize().GetValue(),
		ConnectionWindow: m.GetInitialConnectionWindowSize().GetValue(), HeaderTable: m.GetHpackTableSize().GetValue(), AllowConnect: m.GetAllowConnect()}
	if m.GetHpackTableSize() != nil && o.HeaderTable == 0 {
		return o, refuse(join(path, "hpack_table_size"), "of 0 %s", notRun)
	}
	if m.GetMaxConcurrentStreams() != nil && o.MaxStreams == 0 {
		return o, refuse(join(path, "max_concurrent_streams"), "is not from 1 to 2147483647")
	}
	for _, f := range []struct {
		name string
		n    *wrapperspb.UInt32Value
	}{{"initial_stream_window_size", m.GetInitialStreamWindowSize()}, {"initial_connection_window_size", m.GetInitialConnectionWindowSize()}} {
		if f.n != nil && (f.n.GetValue() < 65535 || f.n.GetValue() > math.MaxInt32) {
			return o, refuse(join(path, f.name), "is not from 65535 to 2147483647")
		}
	}
	k := m.GetConnectionKeepalive()
	if k == nil {
		return o, nil
	}
	p := join(path, "connection_keepalive")
	return o, durations(p, []durationField{{&o.KeepAlive, "interval", k.GetInterval(), 0}, {&o.KeepAliveTimeout, "timeout", k.GetTimeout(), 0}})
}

func httpRoutes(path string, m *hcmv3.HttpConnectionManager, h *model.HTTP) (err error) {
	switch r := m.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_RouteConfig:
		h.Routes, err = RouteTable(join(path, "route_config"), r.RouteConfig)
		return err
	case *hcmv3.HttpConnectionManager_Rds:
		p := join(path, "rds")
		if r.Rds.GetRouteConfigName() == "" {
			return refuse(join(p, "route_config_name"), "is missing")
		}
		h.RDS = r.Rds.GetRouteConfigName()
		return byName(join(p, "config_source"), r.Rds.GetConfigSource())
	}
	return refuse(path, "has neither route_config nor rds")
}

func httpFilters(path string, list []*hcmv3.HttpFilter, h *model.HTTP) error {
	for i, f := range list {
		p := at(path, i)
		if ours, err := actionFilter(join(p, "typed_config"), f.GetTypedConfig(), h); err != nil {
			return err
		} else if ours {
			continue
		}
		if ours, err := limitFilter(join(p, "typed_config"), f.GetTypedConfig(), h); err != nil {
			return err
		} else if ours {
			continue
		}
		switch a := f.GetTypedConfig(); {
		case is(a, &webv3.GrpcWeb{}):
			h.GRPCWeb = true
			if err := unpack(join(p, "typed_config"), a, &webv3.GrpcWeb{}); err != nil {
				return err
			}
		case is(a, &routerv3.Router{}):
			var r routerv3.Router
			if err := unpack(join(p, "typed_config"), a, &r); err != nil {
				return err
			}
			if i != len(list)-1 {
				return refuse(p, "the router has to be the last filter")
			}
			return nil
		default:
			return foreign(join(p, "typed_config"), a)
		}
	}
	return refuse(path, "the last filter has to be the router")
}

func orText(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func boolOr(b *wrapperspb.BoolValue, def bool) bool {
	if b == nil {
		return def
	}
	return b.GetValue()
}

func numberOr(n *wrapperspb.UInt32Value, def uint32) uint32 {
	if n == nil {
		return def
	}
	return n.GetValue()
}

func lowerAll(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, strings.ToLower(s))
	}
	return out
}
