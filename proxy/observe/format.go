package observe

import (
	"cmp"
	"crypto/tls"
	"net/netip"
	"strconv"
	"time"

	"github.com/tulle-mesh/tulle/model/logformat"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// writer makes one line.
type writer struct {
	b        []byte
	e        *Entry
	c        *compiled
	hostname string
}

// text writes one part of a text format.
func (w *writer) text(o *logformat.Op) {
	if o.Kind == logformat.Text {
		w.b = append(w.b, o.Text...)
		return
	}
	n := len(w.b)
	if !w.value(o) {
		w.b = append(w.b[:n], w.c.empty...)
	} else if o.Max > 0 && len(w.b)-n > o.Max {
		w.b = w.b[:n+o.Max]
	}
}

// object writes a JSON object.
func (w *writer) object(all []member) {
	w.b = append(w.b, '{')
	first := true
	for i := range all {
		n := len(w.b)
		if !first {
			w.b = append(w.b, ',')
		}
		if w.member(&all[i]) {
			first = false
		} else {
			w.b = w.b[:n]
		}
	}
	w.b = append(w.b, '}')
}

// member writes one member; false: it has no value and is left out.
func (w *writer) member(m *member) bool {
	w.b = append(w.b, m.name...)
	if m.members != nil {
		w.object(m.members)
		return true
	}
	n := len(w.b)
	if len(m.ops) == 1 && m.ops[0].Kind != logformat.Text {
		o := &m.ops[0]
		if !o.Number {
			w.b = append(w.b, '"')
		}
		there := w.value(o)
		switch {
		case !there && w.c.omit:
			return false
		case !there:
			w.b = append(w.b[:n], "null"...)
			return true
		case o.Number:
			return true
		}
		if o.Max > 0 && len(w.b)-n-1 > o.Max {
			w.b = w.b[:n+1+o.Max]
		}
	} else {
		w.b = append(w.b, '"')
		for i := range m.ops {
			w.text(&m.ops[i])
		}
	}
	w.quote(n)
	return true
}

// quote makes a JSON string of what was written after the quotation mark at n.
func (w *writer) quote(n int) {
	for _, c := range w.b[n+1:] {
		if c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			raw := append([]byte(nil), w.b[n+1:]...) // rare
			w.b = appendText(w.b[:n], raw)
			return
		}
	}
	w.b = append(w.b, '"')
}

// value appends the value of o; false: there is none.
func (w *writer) value(o *logformat.Op) bool {
	e, r := w.e, w.e.Record
	switch o.Kind {
	case logformat.StartTime:
		w.time(o.Time, r.Wall)
		return true
	case logformat.Req:
		return w.request(o.Name) || o.Other != "" && w.request(o.Other)
	case logformat.Resp:
		return w.field(e.Response, o.Name) || o.Other != "" && w.field(e.Response, o.Other)
	case logformat.Trailer:
		return w.field(e.Trailers, o.Name) || o.Other != "" && w.field(e.Trailers, o.Other)
	case logformat.Protocol:
		return !r.TCP && w.string(versions[e.Version%3])
	case logformat.ResponseCode:
		return w.number(int64(status(r)))
	case logformat.ResponseCodeDetails:
		return w.string(e.details())
	case logformat.ResponseFlags:
		return w.string(cmp.Or(flagOf(r.Reason).short, "-")) // a value, also in JSON and where what is empty is left out
	case logformat.ResponseFlagsLong:
		return w.string(cmp.Or(flagOf(r.Reason).long, "-"))
	case logformat.BytesReceived:
		return w.number(r.RequestBytes)
	case logformat.BytesSent:
		return w.number(r.ResponseBytes)
	case logformat.Duration:
		return w.number(int64(max(r.End-r.Start, 0) / time.Millisecond))
	case logformat.RequestDuration:
		return e.Received != 0 && w.number(int64(max(e.Received-r.Start, 0)/time.Millisecond))
	case logformat.ResponseDuration:
		return r.Head != 0 && w.number(int64(max(r.Head-r.Start, 0)/time.Millisecond))
	case logformat.ResponseTxDuration:
		return r.Head != 0 && w.number(int64(max(r.End-r.Head, 0)/time.Millisecond))
	case logformat.UpstreamCluster:
		return w.cluster(r)
	case logformat.UpstreamRequestAttemptCount:
		return w.number(int64(r.NAttempts))
	case logformat.UpstreamTransportFailureReason:
		return w.string(e.Cause)
	case logformat.RouteName:
		return w.string(r.Route)
	case logformat.GRPCStatus, logformat.GRPCStatusNumber:
		return w.grpc(o, r.GRPC)
	case logformat.Hostname:
		return w.string(w.hostname)
	case logformat.ConnectionTerminationDetails:
		return r.TCP && w.string(e.details())
	}
	return w.address(o.Kind) || w.connection(o.Kind)
}

var versions = [...]string{message.HTTP10: "HTTP/1.0", message.HTTP11: "HTTP/1.1", message.HTTP2: "HTTP/2"}

// status answers the status that the client has seen: none if it left first, as Envoy has it.
func status(r *record.Record) int {
	if r.Reason == "downstream_gone" && r.Status == 499 {
		return 0
	}
	return r.Status
}

func (w *writer) string(s string) bool {
	w.b = append(w.b, s...)
	return s != ""
}

func (w *writer) bytes(b []byte) bool {
	w.b = append(w.b, b...)
	return len(b) > 0
}

func (w *writer) number(n int64) bool {
	w.b = strconv.AppendInt(w.b, n, 10)
	return true
}

// time writes a time without allocating.
func (w *writer) time(parts []logformat.Moment, t time.Time) {
	t = t.UTC()
	for i := range parts {
		switch p := &parts[i]; {
		case p.Layout != "":
			w.b = t.AppendFormat(w.b, p.Layout)
		case p.Epoch:
			w.b = strconv.AppendInt(w.b, t.Unix(), 10)
		case p.Fraction > 0:
			ns := uint64(t.Nanosecond()) + 1e9 // ten digits, of which the first is no part of it
			n := len(w.b)
			w.b = strconv.AppendUint(w.b, ns, 10)
			w.b = append(w.b[:n], w.b[n+1:n+1+p.Fraction]...)
		default:
			w.b = append(w.b, p.Text...)
		}
	}
}

// request writes a field of the request, or what HTTP/2 has as a pseudo-header field.
func (w *writer) request(name string) bool {
	h, r := w.e.Request, w.e.Record
	switch name {
	case ":method":
		return w.string(r.Method)
	case ":path":
		if h != nil && len(h.Target) > 0 {
			return w.bytes(h.Target)
		}
		return w.bytes(r.Path)
	case ":authority", "host":
		if h != nil && len(h.Authority) > 0 {
			return w.bytes(h.Authority)
		}
		return w.bytes(r.Authority)
	case ":scheme":
		return h != nil && w.bytes(h.Scheme)
	case ":protocol", "upgrade":
		return h != nil && w.bytes(h.Upgrade)
	case "content-length":
		return h != nil && h.ContentLength >= 0 && w.number(h.ContentLength)
	}
	return w.field(h, name)
}

// field writes the values of a field, joined by commas.
func (w *writer) field(h *message.Head, name string) bool {
	if h == nil {
		return false
	}
	if name == ":status" {
		return w.number(int64(status(w.e.Record)))
	}
	found := false
	for i := range h.Fields {
		if message.EqualFold(h.Fields[i].Name, name) {
			if found {
				w.b = append(w.b, ',')
			}
			w.b = append(w.b, h.Fields[i].Value...)
			found = true
		}
	}
	return found
}

func (w *writer) cluster(r *record.Record) bool {
	if r.Backend.Service.Name == "" {
		return false
	}
	w.b = append(w.b, r.Backend.Service.Name...)
	if ns := r.Backend.Service.Namespace; ns != "" {
		w.b = append(append(w.b, '.'), ns...)
	}
	if r.Backend.Port != 0 {
		w.b = strconv.AppendUint(append(w.b, ':'), uint64(r.Backend.Port), 10)
	}
	return true
}

func (w *writer) grpc(o *logformat.Op, code int) bool {
	if code < 0 || w.e.Record.TCP {
		return false
	}
	switch {
	case o.Kind == logformat.GRPCStatusNumber || o.Name == "NUMBER" || code >= len(grpcNames):
		return w.number(int64(code))
	case o.Name == "SNAKE_STRING":
		return w.string(grpcNames[code].snake)
	}
	return w.string(grpcNames[code].camel)
}

var grpcNames = [...]struct{ camel, snake string }{
	{"OK", "OK"}, {"Canceled", "CANCELLED"}, {"Unknown", "UNKNOWN"}, {"InvalidArgument", "INVALID_ARGUMENT"},
	{"DeadlineExceeded", "DEADLINE_EXCEEDED"}, {"NotFound", "NOT_FOUND"}, {"AlreadyExists", "ALREADY_EXISTS"},
	{"PermissionDenied", "PERMISSION_DENIED"}, {"ResourceExhausted", "RESOURCE_EXHAUSTED"},
	{"FailedPrecondition", "FAILED_PRECONDITION"}, {"Aborted", "ABORTED"}, {"OutOfRange", "OUT_OF_RANGE"},
	{"Unimplemented", "UNIMPLEMENTED"}, {"Internal", "INTERNAL"}, {"Unavailable", "UNAVAILABLE"}, {"DataLoss", "DATA_LOSS"},
	{"Unauthenticated", "UNAUTHENTICATED"},
}

// upstream answers the address of the endpoint that took the request last.
func (e *Entry) upstream() netip.AddrPort {
	if n := min(e.Record.NAttempts, record.MaxAttempts); !e.Upstream.IsValid() && n > 0 {
		return e.Record.Attempts[n-1].Address
	}
	return e.Upstream
}

// address writes an address, a part of one, or nothing if k is none.
func (w *writer) address(k logformat.Kind) bool {
	c := w.e.Conn
	var remote, direct, local netip.AddrPort
	if c != nil {
		remote, direct, local = c.Remote, c.Direct, c.Local
		if !direct.IsValid() {
			direct = remote
		}
	}
	if w.e.Client.IsValid() {
		remote = w.e.Client
	}
	switch k {
	case logformat.UpstreamHost, logformat.UpstreamRemoteAddress:
		return w.whole(w.e.upstream())
	case logformat.UpstreamRemoteAddressWithoutPort:
		return w.host(w.e.upstream())
	case logformat.UpstreamRemotePort:
		return w.port(w.e.upstream())
	case logformat.DownstreamRemoteAddress:
		return w.whole(remote)
	case logformat.DownstreamRemoteAddressWithoutPort:
		return w.host(remote)
	case logformat.DownstreamRemotePort:
		return w.port(remote)
	case logformat.DownstreamDirectRemoteAddress:
		return w.whole(direct)
	case logformat.DownstreamDirectRemoteAddressWithoutPort:
		return w.host(direct)
	case logformat.DownstreamDirectRemotePort:
		return w.port(direct)
	case logformat.DownstreamLocalAddress:
		return w.whole(local)
	case logformat.DownstreamLocalAddressWithoutPort:
		return w.host(local)
	case logformat.DownstreamLocalPort:
		return w.port(local)
	}
	return false
}

func (w *writer) whole(a netip.AddrPort) bool {
	if a.IsValid() {
		w.b = netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).AppendTo(w.b)
	}
	return a.IsValid()
}

func (w *writer) host(a netip.AddrPort) bool {
	if a.IsValid() {
		w.b = a.Addr().Unmap().AppendTo(w.b)
	}
	return a.IsValid()
}

func (w *writer) port(a netip.AddrPort) bool { return a.IsValid() && w.number(int64(a.Port())) }

// connection writes what is known of the connection besides its addresses.
func (w *writer) connection(k logformat.Kind) bool {
	c := w.e.Conn
	if c == nil {
		return false
	}
	switch k {
	case logformat.ConnectionID:
		return w.number(int64(c.ID))
	case logformat.RequestedServerName:
		if c.ServerName == "" && c.TLS != nil {
			return w.string(c.TLS.ServerName)
		}
		return w.string(c.ServerName)
	case logformat.DownstreamTLSVersion:
		return c.TLS != nil && w.string(tlsVersion(c.TLS.Version))
	case logformat.DownstreamTLSCipher:
		return c.TLS != nil && w.string(tls.CipherSuiteName(c.TLS.CipherSuite))
	case logformat.DownstreamPeerSubject:
		return w.string(c.about(textSubject))
	case logformat.DownstreamPeerIssuer:
		return w.string(c.about(textIssuer))
	case logformat.DownstreamPeerSerial:
		return w.string(c.about(textSerial))
	case logformat.DownstreamPeerFingerprint256:
		return w.string(c.about(textHash))
	case logformat.DownstreamPeerURISAN:
		return w.string(c.about(textURIs))
	case logformat.DownstreamPeerDNSSAN:
		return w.string(c.about(textNames))
	case logformat.DownstreamLocalURISAN:
		return w.string(c.about(textLocalURIs))
	case logformat.DownstreamLocalSubject:
		return w.string(c.about(textLocalSubject))
	}
	return false
}

func tlsVersion(v uint16) string {
	switch v {
	case tls.VersionTLS13:
		return "TLSv1.3"
	case tls.VersionTLS12:
		return "TLSv1.2"
	}
	return ""
}
