package observe_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/internal/steady"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/logformat"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/message"
	"github.com/tulle-mesh/tulle/proxy/observe"
)

// sink is a file in memory.
type sink struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sink) Close() error { return nil }

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func entry() *observe.Entry {
	req := &message.Head{Version: message.HTTP2, Target: []byte("/new?x=y"), Authority: []byte("host.test"), Scheme: []byte("https"), ContentLength: 12}
	req.Add([]byte("User-Agent"), []byte(`curl "8"`))
	req.Add([]byte("x-forwarded-for"), []byte("192.0.2.1"))
	req.Add([]byte("x-two"), []byte("a"))
	req.Add([]byte("X-Two"), []byte("b"))
	req.Add([]byte("x-envoy-original-path"), []byte("/old?x=y"))
	res := &message.Head{}
	res.Add([]byte("Content-Type"), []byte("text/plain"))
	tr := &message.Head{}
	tr.Add([]byte("grpc-status"), []byte("4"))
	r := &record.Record{Wall: time.Date(2026, 11, 21, 4, 5, 6, 789_012_345, time.UTC), Start: time.Second, Head: 1500 * time.Millisecond, End: 2 * time.Second,
		Method: "POST", Status: 503, GRPC: 4, Reason: "connect_timeout", Route: "r1", Backend: model.Free("c1"), NAttempts: 2, RequestBytes: 12, ResponseBytes: 34,
		RequestID: []byte("id-1")}
	return &observe.Entry{Record: r, Version: message.HTTP2, Request: req, Response: res, Trailers: tr,
		Upstream: netip.MustParseAddrPort("10.0.0.1:80"), Received: 1250 * time.Millisecond, Client: netip.MustParseAddrPort("192.0.2.1:0"),
		Conn: &observe.Connection{ID: 9, Remote: netip.MustParseAddrPort("[::ffff:127.0.0.1]:1234"), Local: netip.MustParseAddrPort("127.0.0.2:443"),
			TLS: &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, ServerName: "sni.test"}}}
}

// logged answers what a log writes for e.
func logged(t *testing.T, l model.AccessLog, e *observe.Entry) string {
	t.Helper()
	s := &sink{}
	f := observe.NewFiles(observe.FilesConfig{Open: func(string) (io.WriteCloser, error) { return s, nil }, Hostname: "me"})
	logs, err := f.Logs([]model.AccessLog{l})
	if err != nil {
		t.Fatal(err)
	}
	logs.Put(e)
	f.Close()
	return s.String()
}

func TestOperators(t *testing.T) {
	for format, want := range map[string]string{
		"%START_TIME%":                         "2026-11-21T04:05:06.789Z",
		"%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%": "2026/11/21T04:05:06+0000 1795233906",
		"%START_TIME(%s.%3f %6f %f)%":          "1795233906.789 789012 789012345",
		"%REQ(:METHOD)% %REQ(:PATH)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:AUTHORITY)% %REQ(:SCHEME)%": "POST /new?x=y /old?x=y host.test https",
		"%REQ(X-NONE?USER-AGENT):4% %REQ(x-two)% %REQ(none)% %REQ(content-length)%":                       "curl a,b - 12",
		"%RESP(content-type)% %RESP(none)% %TRAILER(grpc-status)% %RESP(:STATUS)%":                        "text/plain - 4 503",
		"%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%":                               "HTTP/2 503 UF UpstreamConnectionFailure",
		"%RESPONSE_CODE_DETAILS%":       "upstream_reset_before_response_started{connection_timeout}",
		"%BYTES_RECEIVED% %BYTES_SENT%": "12 34",
		"%DURATION% %REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%":      "1000 250 500 500",
		"%UPSTREAM_HOST% %UPSTREAM_REMOTE_PORT% %UPSTREAM_CLUSTER%":                     "10.0.0.1:80 80 c1",
		"%UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_TRANSPORT_FAILURE_REASON%":          "2 -",
		"%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%":          "192.0.2.1:0 192.0.2.1",
		"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_PORT%":            "127.0.0.1:1234 1234",
		"%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_PORT%":                            "127.0.0.2:443 443",
		"%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %REQUESTED_SERVER_NAME%":      "TLSv1.3 TLS_AES_128_GCM_SHA256 sni.test",
		"%ROUTE_NAME% %GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)%":  "r1 DeadlineExceeded DEADLINE_EXCEEDED 4",
		"%GRPC_STATUS_NUMBER% %CONNECTION_ID% %HOSTNAME% %DOWNSTREAM_PEER_SUBJECT% 5%%": "4 9 me - 5%",
	} {
		if got := logged(t, model.AccessLog{Path: "x", Format: format}, entry()); got != want {
			t.Errorf("%s\n got %q\nwant %q", format, got, want)
		}
	}
	want := `[2026-11-21T04:05:06.789Z] "POST /old?x=y HTTP/2" 503 UF 12 34 1000 - "192.0.2.1" "curl "8"" "-" "host.test" "10.0.0.1:80"` + "\n"
	if got := logged(t, model.AccessLog{Path: "x"}, entry()); got != want {
		t.Errorf("default\n got %q\nwant %q", got, want)
	}
}

// Every operator that is known is executed, for an exchange and for a relayed connection without anything else.
func TestEveryOperator(t *testing.T) {
	for _, name := range logformat.Names() {
		format := "%" + name + "%"
		if name == "REQ" || name == "RESP" || name == "TRAILER" {
			format = "%" + name + "(a)%"
		}
		if got := logged(t, model.AccessLog{Path: "x", Format: "<" + format + ">"}, entry()); len(got) < 3 {
			t.Errorf("%s: %q", name, got)
		}
		bare := &observe.Entry{Record: &record.Record{TCP: true, GRPC: -1}}
		if got := logged(t, model.AccessLog{Path: "x", Format: "<" + format + ">"}, bare); len(got) < 3 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestJSONAndOmitEmpty(t *testing.T) {
	l := model.AccessLog{Path: "x", JSON: []model.LogField{
		{Name: "code", Format: "%RESPONSE_CODE%"}, {Name: "agent", Format: "%REQ(USER-AGENT)%"}, {Name: "none", Format: "%REQ(none)%"},
		{Name: "mixed", Format: "a %REQ(none)% \"%DURATION%\""}, {Name: "in", Members: []model.LogField{{Name: "flags", Format: "%RESPONSE_FLAGS%"}}},
		{Name: "cut", Format: "%REQ(user-agent):6%"},
	}}
	got := logged(t, l, entry())
	if want := `{"code":503,"agent":"curl \"8\"","none":null,"mixed":"a - \"1000\"","in":{"flags":"UF"},"cut":"curl \""}` + "\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(got), &v); err != nil {
		t.Error(err)
	}
	l.OmitEmpty = true
	got = logged(t, l, entry())
	if want := `{"code":503,"agent":"curl \"8\"","mixed":"a  \"1000\"","in":{"flags":"UF"},"cut":"curl \""}` + "\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	if got := logged(t, model.AccessLog{Path: "x", Format: "<%REQ(none)%>", OmitEmpty: true}, entry()); got != "<>" {
		t.Errorf("%q", got)
	}
}

// TestNoFlags: that there are none is a value.
func TestNoFlags(t *testing.T) {
	e := entry()
	e.Record.Reason = ""
	l := model.AccessLog{Path: "x", OmitEmpty: true, JSON: []model.LogField{{Name: "f", Format: "%RESPONSE_FLAGS%"}, {Name: "l", Format: "%RESPONSE_FLAGS_LONG%"}}}
	if got, want := logged(t, l, e), `{"f":"-","l":"-"}`+"\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

// TestSubjectOrder: the parts of a name are told in the order of the certificate, from the last to the first (RFC 2253).
func TestSubjectOrder(t *testing.T) {
	parts := pkix.RDNSequence{}
	for _, p := range []struct {
		id   int
		text string
	}{{6, "CZ"}, {8, "Bohemia"}, {7, "Prague"}, {10, "O"}, {3, "name"}} { // as openssl req asks for them
		parts = append(parts, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, p.id}, Value: p.text}})
	}
	raw, err := asn1.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	e := entry()
	e.Conn.TLS.PeerCertificates = []*x509.Certificate{{RawSubject: raw, RawIssuer: raw}}
	const name = "CN=name,O=O,L=Prague,ST=Bohemia,C=CZ"
	if got := logged(t, model.AccessLog{Path: "x", Format: "%DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_ISSUER%"}, e); got != name+" "+name {
		t.Error(got)
	}
}

func TestUnknownOperator(t *testing.T) {
	f := observe.NewFiles(observe.FilesConfig{})
	defer f.Close()
	if _, err := f.Logs([]model.AccessLog{{Path: "/dev/stdout", Format: "%NO%"}}); err == nil || !strings.Contains(err.Error(), "%NO%") {
		t.Error(err)
	}
}

// A file that was moved away is opened anew; nothing is lost on the way.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f := observe.NewFiles(observe.FilesConfig{Delay: time.Millisecond})
	logs, err := f.Logs([]model.AccessLog{{Path: path, Format: "%ROUTE_NAME%\n"}})
	if err != nil {
		t.Fatal(err)
	}
	read := func(p, want string) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for {
			b, err := os.ReadFile(p)
			if err == nil && string(b) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s has %q, not %q", p, b, want)
			}
			time.Sleep(time.Millisecond) // poll
		}
	}
	logs.Put(entry())
	read(path, "r1\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	logs.Put(entry())
	read(path+".1", "r1\nr1\n")
	f.Reopen()
	read(path, "")
	logs.Put(entry())
	f.Close()
	read(path, "r1\n")
	if f.Dropped() != 0 {
		t.Errorf("%d dropped", f.Dropped())
	}
}

func TestPutDoesNotAllocate(t *testing.T) {
	f := observe.NewFiles(observe.FilesConfig{Open: func(string) (io.WriteCloser, error) { return &discard{}, nil }})
	defer f.Close()
	logs, err := f.Logs([]model.AccessLog{{Path: "a"}, {Path: "b", JSON: []model.LogField{{Name: "id", Format: "%REQ(X-FORWARDED-FOR)%"},
		{Name: "t", Format: "%START_TIME(%s%3f)%"}, {Name: "d", Format: "%DURATION%"}}}})
	if err != nil {
		t.Fatal(err)
	}
	e := entry()
	for range 2000 {
		logs.Put(e)
	}
	if n := steady.Allocations(forgotten, func() {
		for range 5000 {
			logs.Put(e)
		}
	}); n > forgotten {
		t.Errorf("%d allocations in 5000 lines", n)
	}
}

type discard struct{}

func (*discard) Write(p []byte) (int, error) { return len(p), nil }
func (*discard) Close() error                { return nil }
