package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/xds/delta"
)

// TestRequestsAreBounded: what one stream can make the control plane keep or do has an end.
func TestRequestsAreBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	long := strings.Repeat("x", maxName+1)
	for name, r := range map[string]*delta.Request{
		"type": {TypeUrl: long}, "name": {ResourceNamesSubscribe: []string{long}}, "name of the past": {ResourceNamesUnsubscribe: []string{long}}, "node": {Node: &core.Node{Id: long}},
	} {
		if err := newStream(spiffe.ID{}, nil, &counts{}, nil).within(r, now); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a long %s: %v", name, err)
		}
	}
	s := newStream(spiffe.ID{}, nil, &counts{}, nil)
	for i := range maxTypes {
		if err := s.within(&delta.Request{TypeUrl: fmt.Sprint(i)}, now); err != nil {
			t.Fatal(err)
		}
		s.names[fmt.Sprint(i)] = 1
	}
	if err := s.within(&delta.Request{TypeUrl: "one more"}, now); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one type more: %v", err)
	}
	refused := 0
	for range 30_000 {
		if s.within(&delta.Request{TypeUrl: "0"}, now) != nil {
			refused++
		}
	}
	if refused < 9_000 || s.within(&delta.Request{TypeUrl: "0"}, now.Add(time.Second)) != nil {
		t.Errorf("%d of 30000 requests at once were refused", refused)
	}
}
