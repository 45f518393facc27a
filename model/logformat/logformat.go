// Package logformat reads the formats of access logs: text with Envoy's command operators (%START_TIME%, %REQ(name)% …).
// It says which operators are known, so that a configuration with another one is refused when it is read and not when
// the first line is written; proxy/observe executes what it answers. Pure; what it answers is never changed and may be
// shared. Start reading at Parse.
package logformat

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/model"
)

// Default is Envoy's format, used where none is given.
const Default = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
	`%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" ` +
	`"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"` + "\n"

// Kind is which value an operator stands for.
type Kind uint8

// Kinds, named as their operators.
const (
	Text Kind = iota // not an operator: Op.Text as it is
	StartTime
	Req
	Resp
	Trailer
	Protocol
	ResponseCode
	ResponseCodeDetails
	ResponseFlags
	ResponseFlagsLong
	BytesReceived
	BytesSent
	Duration
	RequestDuration
	ResponseDuration
	ResponseTxDuration
	UpstreamHost
	UpstreamRemoteAddress
	UpstreamRemoteAddressWithoutPort
	UpstreamRemotePort
	UpstreamCluster
	UpstreamRequestAttemptCount
	UpstreamTransportFailureReason
	DownstreamRemoteAddress
	DownstreamRemoteAddressWithoutPort
	DownstreamRemotePort
	DownstreamDirectRemoteAddress
	DownstreamDirectRemoteAddressWithoutPort
	DownstreamDirectRemotePort
	DownstreamLocalAddress
	DownstreamLocalAddressWithoutPort
	DownstreamLocalPort
	DownstreamTLSVersion
	DownstreamTLSCipher
	DownstreamPeerSubject
	DownstreamPeerIssuer
	DownstreamPeerSerial
	DownstreamPeerFingerprint256
	DownstreamPeerURISAN
	DownstreamPeerDNSSAN
	DownstreamLocalURISAN
	DownstreamLocalSubject
	RequestedServerName
	RouteName
	GRPCStatus
	GRPCStatusNumber
	ConnectionID
	ConnectionTerminationDetails
	Hostname
)

// operator is what is known about a kind.
type operator struct {
	name   string
	kind   Kind
	field  bool // (name?other) is required
	number bool // in JSON
}

var operators = [...]operator{
	{name: "START_TIME", kind: StartTime},
	{name: "REQ", kind: Req, field: true},
	{name: "RESP", kind: Resp, field: true},
	{name: "TRAILER", kind: Trailer, field: true},
	{name: "PROTOCOL", kind: Protocol},
	{name: "RESPONSE_CODE", kind: ResponseCode, number: true},
	{name: "RESPONSE_CODE_DETAILS", kind: ResponseCodeDetails},
	{name: "RESPONSE_FLAGS", kind: ResponseFlags},
	{name: "RESPONSE_FLAGS_LONG", kind: ResponseFlagsLong},
	{name: "BYTES_RECEIVED", kind: BytesReceived, number: true},
	{name: "BYTES_SENT", kind: BytesSent, number: true},
	{name: "DURATION", kind: Duration, number: true},
	{name: "REQUEST_DURATION", kind: RequestDuration, number: true},
	{name: "RESPONSE_DURATION", kind: ResponseDuration, number: true},
	{name: "RESPONSE_TX_DURATION", kind: ResponseTxDuration, number: true},
	{name: "UPSTREAM_HOST", kind: UpstreamHost},
	{name: "UPSTREAM_REMOTE_ADDRESS", kind: UpstreamRemoteAddress},
	{name: "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", kind: UpstreamRemoteAddressWithoutPort},
	{name: "UPSTREAM_REMOTE_PORT", kind: UpstreamRemotePort, number: true},
	{name: "UPSTREAM_CLUSTER", kind: UpstreamCluster},
	{name: "UPSTREAM_REQUEST_ATTEMPT_COUNT", kind: UpstreamRequestAttemptCount, number: true},
	{name: "UPSTREAM_TRANSPORT_FAILURE_REASON", kind: UpstreamTransportFailureReason},
	{name: "DOWNSTREAM_REMOTE_ADDRESS", kind: DownstreamRemoteAddress},
	{name: "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", kind: DownstreamRemoteAddressWithoutPort},
	{name: "DOWNSTREAM_REMOTE_PORT", kind: DownstreamRemotePort, number: true},
	{name: "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", kind: DownstreamDirectRemoteAddress},
	{name: "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", kind: DownstreamDirectRemoteAddressWithoutPort},
	{name: "DOWNSTREAM_DIRECT_REMOTE_PORT", kind: DownstreamDirectRemotePort, number: true},
	{name: "DOWNSTREAM_LOCAL_ADDRESS", kind: DownstreamLocalAddress},
	{name: "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", kind: DownstreamLocalAddressWithoutPort},
	{name: "DOWNSTREAM_LOCAL_PORT", kind: DownstreamLocalPort, number: true},
	{name: "DOWNSTREAM_TLS_VERSION", kind: DownstreamTLSVersion},
	{name: "DOWNSTREAM_TLS_CIPHER", kind: DownstreamTLSCipher},
	{name: "DOWNSTREAM_PEER_SUBJECT", kind: DownstreamPeerSubject},
	{name: "DOWNSTREAM_PEER_ISSUER", kind: DownstreamPeerIssuer},
	{name: "DOWNSTREAM_PEER_SERIAL", kind: DownstreamPeerSerial},
	{name: "DOWNSTREAM_PEER_FINGERPRINT_256", kind: DownstreamPeerFingerprint256},
	{name: "DOWNSTREAM_PEER_URI_SAN", kind: DownstreamPeerURISAN},
	{name: "DOWNSTREAM_PEER_DNS_SAN", kind: DownstreamPeerDNSSAN},
	{name: "DOWNSTREAM_LOCAL_URI_SAN", kind: DownstreamLocalURISAN},
	{name: "DOWNSTREAM_LOCAL_SUBJECT", kind: DownstreamLocalSubject},
	{name: "REQUESTED_SERVER_NAME", kind: RequestedServerName},
	{name: "ROUTE_NAME", kind: RouteName},
	{name: "GRPC_STATUS", kind: GRPCStatus},
	{name: "GRPC_STATUS_NUMBER", kind: GRPCStatusNumber, number: true},
	{name: "CONNECTION_ID", kind: ConnectionID, number: true},
	{name: "CONNECTION_TERMINATION_DETAILS", kind: ConnectionTerminationDetails},
	{name: "HOSTNAME", kind: Hostname},
}

// Names answers the operators that are known, for the reference.
func Names() []string {
	names := make([]string, len(operators))
	for i := range operators {
		names[i] = operators[i].name
	}
	return names
}

// Op is a part of a format.
type Op struct {
	Kind   Kind
	Text   string   // of Text
	Name   string   // Req, Resp, Trailer: of the field, in lower case; GRPCStatus: "CAMEL_STRING", "SNAKE_STRING" or "NUMBER"
	Other  string   // the field that is looked at when there is no Name; "": none
	Max    int      // bytes of the value at most; 0: all
	Time   []Moment // StartTime
	Number bool     // a number in JSON, if it is all of a member
}

// Parse reads a format. An error names the operator and its place.
func Parse(format string) ([]Op, error) {
	var ops []Op
	for rest := format; rest != ""; {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			ops = appendText(ops, rest)
			break
		}
		ops = appendText(ops, rest[:i])
		rest = rest[i:]
		if strings.HasPrefix(rest, "%%") {
			ops, rest = appendText(ops, "%"), rest[2:]
			continue
		}
		op, n, err := parseOperator(rest)
		if err != nil {
			return nil, fmt.Errorf("access log format, byte %d: %w", len(format)-len(rest), err)
		}
		ops, rest = append(ops, op), rest[n:]
	}
	return ops, nil
}

func appendText(ops []Op, s string) []Op {
	if s == "" {
		return ops
	}
	if n := len(ops); n > 0 && ops[n-1].Kind == Text {
		ops[n-1].Text += s
		return ops
	}
	return append(ops, Op{Text: s})
}

// parseOperator reads %NAME%, %NAME(argument)% or %NAME(argument):length% from the start of s, and answers its length.
func parseOperator(s string) (op Op, n int, err error) {
	n = 1
	for n < len(s) && (s[n] == '_' || s[n] >= 'A' && s[n] <= 'Z' || s[n] >= '0' && s[n] <= '9') {
		n++
	}
	name, argument, given := s[1:n], "", false
	if n < len(s) && s[n] == '(' {
		end := strings.IndexByte(s[n:], ')')
		if end < 0 {
			return op, 0, fmt.Errorf("%%%s( is not closed by )", name)
		}
		argument, given, n = s[n+1:n+end], true, n+end+1
	}
	if n < len(s) && s[n] == ':' {
		start := n + 1
		for n++; n < len(s) && s[n] >= '0' && s[n] <= '9'; n++ {
		}
		if op.Max, err = strconv.Atoi(s[start:n]); err != nil || op.Max == 0 {
			return op, 0, fmt.Errorf("%%%s: %q is no length", name, s[start:n])
		}
	}
	if n >= len(s) || s[n] != '%' {
		return op, 0, fmt.Errorf("%%%s is not closed by %%; write %%%% for a percent sign", name)
	}
	for i := range operators {
		if operators[i].name == name {
			err = op.complete(&operators[i], argument, given)
			return op, n + 1, err
		}
	}
	return op, 0, fmt.Errorf("%%%s%% is no operator that is known; see docs/reference/xds.md", name)
}

func (op *Op) complete(o *operator, argument string, given bool) error {
	op.Kind, op.Number = o.kind, o.number && op.Max == 0
	switch {
	case o.field:
		op.Name, op.Other, _ = strings.Cut(strings.ToLower(argument), "?")
		if op.Name == "" {
			return fmt.Errorf("%%%s%% needs a field's name: %%%s(name)%%", o.name, o.name)
		}
	case o.kind == StartTime:
		times, err := parseTime(argument)
		op.Time = times
		return err
	case o.kind == GRPCStatus:
		switch argument {
		case "", "CAMEL_STRING", "SNAKE_STRING":
			op.Name = argument
		case "NUMBER":
			op.Name, op.Number = argument, true
		default:
			return fmt.Errorf("%%GRPC_STATUS(%s)%%: the argument is CAMEL_STRING, SNAKE_STRING or NUMBER", argument)
		}
	case given:
		return fmt.Errorf("%%%s%% takes no argument", o.name)
	}
	return nil
}

// Check reports why the formats of l cannot be run; nil if they can.
func Check(l *model.AccessLog) error {
	if l.JSON != nil {
		return checkFields(l.JSON)
	}
	_, err := Parse(l.Format)
	return err
}

func checkFields(fields []model.LogField) error {
	for i := range fields {
		f := &fields[i]
		err := checkFields(f.Members)
		if f.Members == nil {
			_, err = Parse(f.Format)
		}
		if err != nil {
			return fmt.Errorf("member %q: %w", f.Name, err)
		}
	}
	return nil
}
