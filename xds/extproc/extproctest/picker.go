// Package extproctest is a small endpoint picker for tests: a real server of envoy.service.ext_proc.v3 that answers as the endpoint
// picker protocol of Gateway API's inference extension asks for. It waits for the end of a request's body, gives the body back, and
// remembers what it has heard. It is safe for concurrent use. Start reading at Picker.
package extproctest

import (
	"strconv"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
)

// Heard is a request as a picker has heard of it.
type Heard struct {
	Fields map[string]string
	Body   string
	Pieces int      // messages with a part of the body
	Subset []string // endpoints that may be picked
	Hinted bool     // they were told
}

// Said is what a picker says of a request.
type Said struct {
	Endpoints string // "ip:port,ip:port"
	Header    bool   // say so in a field of the request, not in metadata
	Status    int32  // an answer instead; 0: none
	Text      string
	Set       map[string]string
	Body      *string // instead of the request's
	Plain     bool    // the answer says that no body is wanted, and none is given back
}

// Served is what a picker was told after a request.
type Served struct {
	Endpoint, Status string
}

// Picker is the server.
type Picker struct {
	extprocv3.UnimplementedExternalProcessorServer
	// Decide answers a request. It may wait.
	Decide func(*Heard) Said

	mu     sync.Mutex
	heard  []Heard
	served []Served
	ended  int
}

// Register adds the picker to a gRPC server.
func (p *Picker) Register(g grpc.ServiceRegistrar) { extprocv3.RegisterExternalProcessorServer(g, p) }

// Heard answers what was asked so far.
func (p *Picker) Heard() []Heard {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Heard(nil), p.heard...)
}

// Served answers what was told so far, and how many streams have ended.
func (p *Picker) Served() (told []Served, ended int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Served(nil), p.served...), p.ended
}

// Process implements the service.
func (p *Picker) Process(s extprocv3.ExternalProcessor_ProcessServer) error {
	defer func() {
		p.mu.Lock()
		p.ended++
		p.mu.Unlock()
	}()
	var h Heard
	for {
		m, err := s.Recv()
		if err != nil {
			return nil
		}
		whole := false
		switch r := m.GetRequest().(type) {
		case *extprocv3.ProcessingRequest_RequestHeaders:
			h.head(m, r.RequestHeaders)
			whole = r.RequestHeaders.GetEndOfStream()
		case *extprocv3.ProcessingRequest_RequestBody:
			h.Body += string(r.RequestBody.GetBody())
			h.Pieces++
			whole = r.RequestBody.GetEndOfStream()
		case *extprocv3.ProcessingRequest_ResponseHeaders:
			p.told(m, r.ResponseHeaders)
			if err := s.Send(&extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{}}}); err != nil {
				return err
			}
		}
		if !whole {
			continue
		}
		p.mu.Lock()
		p.heard = append(p.heard, h)
		p.mu.Unlock()
		said := p.Decide(&h)
		for _, m := range said.messages(&h) {
			if err := s.Send(m); err != nil {
				return err
			}
		}
	}
}

func (h *Heard) head(m *extprocv3.ProcessingRequest, r *extprocv3.HttpHeaders) {
	h.Fields = map[string]string{}
	for _, f := range r.GetHeaders().GetHeaders() {
		h.Fields[f.GetKey()] = string(f.GetRawValue())
	}
	hint := m.GetMetadataContext().GetFilterMetadata()["envoy.lb.subset_hint"].GetFields()["x-gateway-destination-endpoint-subset"]
	h.Hinted = hint != nil
	for _, v := range hint.GetListValue().GetValues() {
		h.Subset = append(h.Subset, v.GetStringValue())
	}
}

func (p *Picker) told(m *extprocv3.ProcessingRequest, r *extprocv3.HttpHeaders) {
	one := Served{Endpoint: m.GetMetadataContext().GetFilterMetadata()["envoy.lb"].GetFields()["x-gateway-destination-endpoint-served"].GetStringValue()}
	for _, f := range r.GetHeaders().GetHeaders() {
		if f.GetKey() == ":status" {
			one.Status = string(f.GetRawValue())
		}
	}
	p.mu.Lock()
	p.served = append(p.served, one)
	p.mu.Unlock()
}

// messages are what is said, in the order of the protocol.
func (s *Said) messages(h *Heard) (out []*extprocv3.ProcessingResponse) {
	if s.Status != 0 {
		return append(out, &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ImmediateResponse{
			ImmediateResponse: &extprocv3.ImmediateResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode(s.Status)}, Body: []byte(s.Text)}}})
	}
	mutation := &extprocv3.HeaderMutation{}
	set := func(name, value string) {
		mutation.SetHeaders = append(mutation.SetHeaders, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, RawValue: []byte(value)}})
	}
	head := &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestHeaders{
		RequestHeaders: &extprocv3.HeadersResponse{Response: &extprocv3.CommonResponse{HeaderMutation: mutation, ClearRouteCache: true}}}}
	switch {
	case s.Header:
		set("x-gateway-destination-endpoint", s.Endpoints)
	case s.Endpoints != "":
		head.DynamicMetadata = &structpb.Struct{Fields: map[string]*structpb.Value{"envoy.lb": structpb.NewStructValue(&structpb.Struct{
			Fields: map[string]*structpb.Value{"x-gateway-destination-endpoint": structpb.NewStringValue(s.Endpoints)}})}}
	}
	for name, value := range s.Set {
		set(name, value)
	}
	out = append(out, head)
	body := h.Body
	if s.Body != nil {
		body = *s.Body
		set("content-length", strconv.Itoa(len(body)))
	}
	if s.Plain {
		head.ModeOverride = &filterv3.ProcessingMode{RequestBodyMode: filterv3.ProcessingMode_NONE}
	}
	if h.Pieces == 0 || s.Plain {
		return out
	}
	for rest := body; ; {
		n := min(len(rest), 60<<10)
		out = append(out, &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{
			Response: &extprocv3.CommonResponse{BodyMutation: &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_StreamedResponse{
				StreamedResponse: &extprocv3.StreamedBodyResponse{Body: []byte(strings.Clone(rest[:n])), EndOfStream: n == len(rest)}}}}}}})
		if rest = rest[n:]; rest == "" {
			return out
		}
	}
}
