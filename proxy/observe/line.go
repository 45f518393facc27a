package observe

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
)

// line is one JSON object being written. Fields without a value are left out.
type line struct{ b []byte }

// appendLine appends the access log's line of r to dst. The fields are telemetry.LogFields.
func appendLine(dst []byte, r *record.Record) []byte {
	l := line{append(dst, `{"time":"`...)}
	l.b = r.Wall.UTC().AppendFormat(l.b, "2006-01-02T15:04:05.000000Z07:00")
	l.b = append(l.b, '"')
	k := keyOf(r)
	pub := k.public()
	l.text("direction", pub.Direction)
	l.text("source", pub.Source)
	l.text("source_id", r.SourceID)
	l.text("destination", pub.Destination)
	l.text("destination_id", r.DestinationID)
	l.number("port", int64(r.Port), r.Port != 0)
	if r.Wanted.IsValid() {
		l.key("wanted")
		l.b = append(r.Wanted.AppendTo(append(l.b, '"')), '"')
	}
	l.text("protocol", pub.Protocol)
	l.key("mtls")
	l.b = strconv.AppendBool(l.b, r.MTLS)
	l.text("method", r.Method)
	l.bytes("authority", r.Authority)
	l.bytes("path", r.Path)
	l.number("status", int64(r.Status), r.Status != 0)
	l.number("grpc_status", int64(r.GRPC), r.GRPC >= 0 && !r.TCP)
	l.text("reason", r.Reason)
	l.decision(&r.Decision)
	l.text("route", r.Route)
	if r.Mirror {
		l.key("mirror")
		l.b = append(l.b, "true"...)
	}
	l.number("rule", int64(r.Rule), r.Route != "")
	if r.Backend.Port != 0 {
		l.text("backend", r.Backend.String())
	}
	l.millis("duration_ms", r.End-r.Start)
	if r.Head != 0 {
		l.millis("head_ms", r.Head-r.Start)
	}
	l.number("request_bytes", r.RequestBytes, true)
	l.number("response_bytes", r.ResponseBytes, true)
	l.attempts(r)
	l.bytes("request_id", r.RequestID)
	return append(l.b, '}', '\n')
}

// decision tells what the workload's policies said.
func (l *line) decision(d *record.Decision) {
	l.text("refused_by", d.Refusal.By)
	l.text("refused_why", d.Refusal.Cause)
	l.text("issuer", d.Refusal.Issuer)
	if d.Verdict == record.Unasked {
		return
	}
	l.text("authz", d.Verdict.String())
	l.text("policy", d.Policy)
	l.text("policy_rule", d.Rule)
	if !d.Authorizer.Service.IsZero() {
		l.key("authorizer")
		l.b = appendPort(append(l.b, '"'), d.Authorizer)
	}
	l.text("authorizer_said", d.Word.String())
	l.text("nearest", d.Nearest)
	l.text("dry_run", d.Dry.String())
	l.text("dry_run_policy", d.DryPolicy)
	l.text("dry_run_rule", d.DryRule)
	l.text("audit", d.Audit)
	l.text("audit_rule", d.AuditRule)
}

// appendPort appends "name.namespace:port" and a quote: names of services need no escapes.
func appendPort(b []byte, n model.PortName) []byte {
	b = append(append(append(b, n.Service.Name...), '.'), n.Service.Namespace...)
	return append(strconv.AppendUint(append(b, ':'), uint64(n.Port), 10), '"')
}

func (l *line) attempts(r *record.Record) {
	n := min(r.NAttempts, record.MaxAttempts)
	if n == 0 {
		return
	}
	l.key("attempts")
	l.b = append(l.b, '[')
	for i := range n {
		a := &r.Attempts[i]
		if i > 0 {
			l.b = append(l.b, ',')
		}
		l.b = append(l.b, `{"workload":`...)
		l.b = appendText(l.b, a.Workload)
		if a.Address.IsValid() {
			l.key("address")
			l.b = append(a.Address.AppendTo(append(l.b, '"')), '"')
		}
		l.number("from", int64(a.From), a.From != 0)
		l.text("reason", a.Reason)
		l.millis("ms", a.End-a.Start)
		l.b = append(l.b, '}')
	}
	l.b = append(l.b, ']')
	l.number("more_attempts", int64(r.NAttempts-n), r.NAttempts > n)
}

func (l *line) key(k string) {
	l.b = append(l.b, ',', '"')
	l.b = append(l.b, k...)
	l.b = append(l.b, '"', ':')
}

func (l *line) text(k, v string) {
	if v != "" {
		l.key(k)
		l.b = appendText(l.b, v)
	}
}

func (l *line) bytes(k string, v []byte) {
	if len(v) != 0 {
		l.key(k)
		l.b = appendText(l.b, v)
	}
}

func (l *line) number(k string, v int64, there bool) {
	if there {
		l.key(k)
		l.b = strconv.AppendInt(l.b, v, 10)
	}
}

func (l *line) millis(k string, d time.Duration) {
	l.key(k)
	l.b = strconv.AppendFloat(l.b, float64(max(d, 0))/1e6, 'f', 3, 64)
}

// appendText appends v as a JSON string; bytes that are not UTF-8 become U+FFFD.
func appendText[T ~string | ~[]byte](b []byte, v T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(v); {
		c := v[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			i++
		case c < utf8.RuneSelf:
			b = append(b, c)
			i++
		default:
			r, n := decodeRune(v[i:])
			b = utf8.AppendRune(b, r)
			i += n
		}
	}
	return append(b, '"')
}

func decodeRune[T ~string | ~[]byte](v T) (rune, int) {
	var p [utf8.UTFMax]byte
	n := copy(p[:], v)
	return utf8.DecodeRune(p[:n])
}
