package server

import (
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/xds/tullepb"
)

// TestHelloOfLines: no text of an announcement holds a control character, since it travels on to all who call the workload.
func TestHelloOfLines(t *testing.T) {
	hello := func(change func(h *tullepb.Hello)) *tullepb.Hello {
		h := &tullepb.Hello{Workload: "web-1", Namespace: "default", Service: "web", Version: "1", ServiceAccount: "web", Proxy: "dev", Address: "127.0.0.1:1",
			Labels: map[string]string{"a": "b"}, Ports: []*tullepb.WorkloadPort{{Name: "http", Port: 80, Target: 8080}}}
		change(h)
		return h
	}
	if _, err := readHello(hello(func(*tullepb.Hello) {})); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(h *tullepb.Hello, bad string){
		"workload":         func(h *tullepb.Hello, bad string) { h.Workload = bad },
		"namespace":        func(h *tullepb.Hello, bad string) { h.Namespace = bad },
		"service":          func(h *tullepb.Hello, bad string) { h.Service = bad },
		"version":          func(h *tullepb.Hello, bad string) { h.Version = bad },
		"account":          func(h *tullepb.Hello, bad string) { h.ServiceAccount = bad },
		"proxy":            func(h *tullepb.Hello, bad string) { h.Proxy = bad },
		"label":            func(h *tullepb.Hello, bad string) { h.Labels[bad] = "x" },
		"value of a label": func(h *tullepb.Hello, bad string) { h.Labels["x"] = bad },
		"name of a port":   func(h *tullepb.Hello, bad string) { h.Ports[0].Name = bad },
	} {
		for _, bad := range []string{"a\nb", "a\r", "\x00", strings.Repeat("x", maxText+1)} {
			if _, err := readHello(hello(func(h *tullepb.Hello) { change(h, bad) })); err == nil || strings.ContainsAny(err.Error(), "\r\n\x00") {
				t.Errorf("%s %.10q: %v", what, bad, err)
			}
		}
	}
}
