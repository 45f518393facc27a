package extproc

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tulle-mesh/tulle/model"
)

// questions are the messages that say everything about a request. Its body is streamed both ways (FULL_DUPLEX_STREAMED): that is the
// mode that the inference extension asks for, and a picker that looks into a body waits for its end before it says anything.
func questions(q *model.PickQuestion) []*extprocv3.ProcessingRequest {
	h := &extprocv3.HttpHeaders{Headers: &corev3.HeaderMap{}, EndOfStream: !q.HasBody}
	for _, f := range q.Fields {
		h.Headers.Headers = append(h.Headers.Headers, &corev3.HeaderValue{Key: f.Name, RawValue: []byte(f.Value)})
	}
	first := &extprocv3.ProcessingRequest{
		Request:        &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: h},
		ProtocolConfig: &extprocv3.ProtocolConfiguration{RequestBodyMode: filterv3.ProcessingMode_FULL_DUPLEX_STREAMED, ResponseBodyMode: filterv3.ProcessingMode_NONE},
	}
	if q.Endpoints != nil {
		list := &structpb.ListValue{}
		for _, e := range q.Endpoints {
			list.Values = append(list.Values, structpb.NewStringValue(e))
		}
		first.MetadataContext = metadata(spaceSubset, fieldSubset, structpb.NewListValue(list))
	}
	out := []*extprocv3.ProcessingRequest{first}
	for rest := q.Body; q.HasBody; {
		n := min(len(rest), piece)
		b := &extprocv3.HttpBody{Body: rest[:n], EndOfStream: n == len(rest)}
		out = append(out, &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestBody{RequestBody: b}})
		if rest = rest[n:]; len(rest) == 0 {
			break
		}
	}
	return out
}

// served says who has answered.
func served(e ending) *extprocv3.ProcessingRequest {
	h := &extprocv3.HttpHeaders{Headers: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: ":status", RawValue: strconv.AppendInt(nil, int64(e.status), 10)}}}}
	m := &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: h}}
	if e.endpoint != "" {
		m.MetadataContext = metadata(spacePicked, fieldServed, structpb.NewStringValue(e.endpoint))
	}
	return m
}

func metadata(space, key string, v *structpb.Value) *corev3.Metadata {
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{space: {Fields: map[string]*structpb.Value{key: v}}}}
}

// answer is what a picker has said so far.
type answer struct {
	model.PickAnswer
	most      int  // bytes that a body may have
	headed    bool // the head was answered
	bodied    bool // and the body, up to its end
	rewriting bool // a part of another body is here
	plain     bool // the picker wants no body
}

// complete reports whether everything was said about the request.
func (a *answer) complete(q *model.PickQuestion) bool {
	return a.Status != 0 || a.headed && (a.bodied || a.plain && !a.rewriting || !q.HasBody)
}

// take reads one message. What it says about responses means nothing here.
func (a *answer) take(m *extprocv3.ProcessingResponse) error {
	if v := m.GetDynamicMetadata().GetFields()[spacePicked].GetStructValue().GetFields()[fieldDestination]; v != nil {
		a.pick(v.GetStringValue())
	}
	switch r := m.GetResponse().(type) {
	case *extprocv3.ProcessingResponse_ImmediateResponse:
		a.Status = int(r.ImmediateResponse.GetStatus().GetCode())
		if a.Status < 400 || a.Status > 599 {
			a.Status = 503 // the protocol knows no other answers than failures
		}
		a.Text = r.ImmediateResponse.GetBody()
		a.Text = a.Text[:min(len(a.Text), model.MaxPickText)]
	case *extprocv3.ProcessingResponse_RequestHeaders:
		a.headed = true
		a.mutate(r.RequestHeaders.GetResponse().GetHeaderMutation())
		if mode := m.GetModeOverride(); mode != nil && mode.GetRequestBodyMode() == filterv3.ProcessingMode_NONE {
			a.plain = true
		}
	case *extprocv3.ProcessingResponse_RequestBody:
		a.mutate(r.RequestBody.GetResponse().GetHeaderMutation())
		return a.write(r.RequestBody.GetResponse().GetBodyMutation())
	}
	return nil
}

// write takes what stands for the request's body; nil: it stays as it is.
func (a *answer) write(m *extprocv3.BodyMutation) error {
	switch b := m.GetMutation().(type) {
	case *extprocv3.BodyMutation_StreamedResponse:
		a.rewriting, a.Rewritten = true, true
		a.Body = append(a.Body, b.StreamedResponse.GetBody()...)
		if b.StreamedResponse.GetEndOfStream() {
			a.rewriting, a.bodied = false, true
		}
	case *extprocv3.BodyMutation_Body:
		a.Body, a.Rewritten, a.bodied = b.Body, true, true
	case *extprocv3.BodyMutation_ClearBody:
		a.Body, a.Rewritten, a.bodied = nil, a.Rewritten || b.ClearBody, true
	default:
		a.bodied = true
	}
	if len(a.Body) > a.most {
		return errGrown
	}
	return nil
}

// mutate takes changes of the request's head. A field replaces the one of its name, as Envoy's own processor has it, unless it is only
// to be there.
func (a *answer) mutate(m *extprocv3.HeaderMutation) {
	for _, o := range m.GetSetHeaders() {
		name, value := strings.ToLower(o.GetHeader().GetKey()), string(o.GetHeader().GetRawValue())
		if value == "" {
			value = o.GetHeader().GetValue()
		}
		if name == fieldDestination {
			a.pick(value)
		}
		if len(a.Set) < model.MaxPickFields && settable(name, value) {
			a.Set = append(a.Set, model.Header{Name: name, Value: value})
		}
	}
	for _, name := range m.GetRemoveHeaders() {
		if name = strings.ToLower(name); len(a.Remove) < model.MaxPickFields && settable(name, "") {
			a.Remove = append(a.Remove, name)
		}
	}
}

// framing are the fields that say how a message is sent, or are the mesh's own to say.
var framing = []string{"host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive", "proxy-connection", "expect"}

// settable reports whether a picker may change a field.
func settable(name, value string) bool {
	if name == "" || slices.Contains(framing, name) || strings.HasPrefix(name, "tulle-") || len(value) > model.MaxPickText {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return !strings.ContainsAny(value, "\r\n\x00")
}

// pick reads "ip:port,ip:port"; what is neither is passed by.
func (a *answer) pick(list string) {
	a.Endpoints = a.Endpoints[:0]
	for text := range strings.SplitSeq(list, ",") {
		if e, err := netip.ParseAddrPort(strings.TrimSpace(text)); err == nil && len(a.Endpoints) < model.MaxPicked {
			a.Endpoints = append(a.Endpoints, netip.AddrPortFrom(e.Addr().Unmap(), e.Port()))
		}
	}
}
