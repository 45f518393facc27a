package downstream_test

import (
	"io"
	"net/http"
	"testing"
)

// A request whose body breaks HTTP is answered, if nothing else has been, and nothing after it is read.
func TestBrokenBody(t *testing.T) {
	p := program(t, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err == nil {
			t.Error("the program saw a whole request")
		}
	})
	const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, tc := range []struct {
		body   string
		status int
	}{
		{"xyz\r\n", 400}, {"3\r\nabcd\r\n0\r\n\r\n", 400}, {"3\nabc\r\n0\r\n\r\n", 400}, {"0\r\nX : y\r\n\r\n", 400},
	} {
		c := raw(t, p)
		c.send(head + tc.body + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
		if res, body := c.response("POST"); res.StatusCode != tc.status || !res.Close || res.Header.Get("Tulle-Reason") == "" {
			t.Errorf("%q: got %d %v %q", tc.body, res.StatusCode, res.Header, body)
		}
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Errorf("%q: the connection goes on: %v", tc.body, err)
		}
	}
}

// What follows a CONNECT that was declined may be meant for the tunnel: it is no request.
func TestDeclinedConnect(t *testing.T) {
	p := program(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "CONNECT" {
			t.Errorf("the program saw %s %s", r.Method, r.RequestURI)
		}
		w.WriteHeader(http.StatusForbidden)
	})
	c := raw(t, p)
	c.send("CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	if res, _ := c.response("CONNECT"); res.StatusCode != 403 || !res.Close {
		t.Errorf("got %d %v", res.StatusCode, res.Header)
	}
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Errorf("the connection goes on: %v", err)
	}
}
