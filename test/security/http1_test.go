//go:build e2e

package security

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// raw sends bytes to the published port and answers the statuses that came back, separated by commas: "closed" for none and the end
// of the connection, "open" for none and no end.
func raw(m *mesh, text string) string {
	s, _ := talk(m, text)
	return s
}

func talk(m *mesh, text string) (statuses, body string) {
	c, err := net.Dial("tcp", m.published)
	if err != nil {
		return err.Error(), ""
	}
	defer c.Close()
	go func() { _, _ = io.WriteString(c, text) }() // the proxy may end it before all is written
	_ = c.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
	r := bufio.NewReader(c)
	var list []string
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			if len(list) == 0 {
				list = []string{map[bool]string{true: "open", false: "closed"}[errors.Is(err, os.ErrDeadlineExceeded)]}
			}
			return strings.Join(list, ","), body
		}
		b, _ := io.ReadAll(res.Body)
		body += string(b)
		list = append(list, strconv.Itoa(res.StatusCode))
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // a second answer would be there
	}
}

// bad is a request that must not reach the program.
func bad(name, text string) row {
	return row{name: "http1 " + name, try: func(m *mesh) string { return raw(m, text) }, want: refused, hidden: true}
}

// cut is one whose head is sound: what follows breaks it.
func cut(name, text string) row {
	return row{name: "http1 " + name, try: func(m *mesh) string { return raw(m, text) }, want: append([]string{"200", "502", "open"}, refused...)}
}

const get = "GET /x HTTP/1.1\r\nHost: target\r\n"
const post = "POST /x HTTP/1.1\r\nHost: target\r\n"

// framing is what could make two readers see two messages where there is one.
func framing() (rows []row) {
	hidden := "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: target\r\n\r\n"
	for name, head := range map[string]string{
		"length and chunked": "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "chunked and length": "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
		"two lengths": "Content-Length: 4\r\nContent-Length: 5\r\n", "list of lengths": "Content-Length: 4, 5\r\n", "length with a sign": "Content-Length: +4\r\n",
		"negative length": "Content-Length: -4\r\n", "hexadecimal length": "Content-Length: 0x4\r\n", "length with a blank": "Content-Length: 4 4\r\n", "empty length": "Content-Length:\r\n",
		"length beyond 64 bits": "Content-Length: 18446744073709551620\r\n", "length with an underscore": "Content-Length: 1_0\r\n", "length with a point": "Content-Length: 4.0\r\n",
		"xchunked": "Transfer-Encoding: xchunked\r\n", "chunked twice": "Transfer-Encoding: chunked, chunked\r\n", "chunked in two fields": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
		"chunked then identity": "Transfer-Encoding: chunked, identity\r\n", "identity": "Transfer-Encoding: identity\r\n", "gzip, chunked": "Transfer-Encoding: gzip, chunked\r\n",
		"chunked with a vertical tab": "Transfer-Encoding: \x0bchunked\r\n", "chunked with a parameter": "Transfer-Encoding: chunked;q=1\r\n", "quoted chunked": "Transfer-Encoding: \"chunked\"\r\n",
		"empty encoding": "Transfer-Encoding:\r\n", "blank before the colon": "Transfer-Encoding : chunked\r\n", "tab before the colon": "Transfer-Encoding\t: chunked\r\n",
		"folded encoding": "Transfer-Encoding:\r\n chunked\r\n", "folded length": "Content-Length:\r\n 4\r\n", "blank before a name": " Content-Length: 4\r\n", "folded field": "X: y\r\n\tTransfer-Encoding: chunked\r\n",
		"bare line feed": "Content-Length: 4\nX: y\r\n", "bare carriage return": "Content-Length: 4\rX: y\r\n", "line feed in a value": "X: y\nTransfer-Encoding: chunked\r\n",
		"null in a name": "Transfer\x00-Encoding: chunked\r\n", "null in a value": "Transfer-Encoding: chunked\x00\r\n", "encoding beyond ASCII": "Transfer-Encoding: chunke\xc4\x91\r\n",
		"field without a colon": "Transfer-Encoding chunked\r\n", "field without a name": ": chunked\r\n", "length blank before the colon": "Content-Length : 4\r\n",
	} {
		rows = append(rows, bad(name, post+head+"\r\n"+hidden))
	}
	rows = append(rows, bad("chunked in HTTP/1.0", "POST /x HTTP/1.0\r\nHost: target\r\nTransfer-Encoding: chunked\r\n\r\n"+hidden))
	for name, body := range map[string]string{
		"size 0x5": "0x5\r\nhello\r\n0\r\n\r\n", "size +5": "+5\r\nhello\r\n0\r\n\r\n", "size -5": "-5\r\nhello\r\n0\r\n\r\n", "size beyond 64 bits": "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n", "no size": "\r\nhello\r\n0\r\n\r\n",
		"size g": "g\r\nhello\r\n0\r\n\r\n", "blank before size": " 5\r\nhello\r\n0\r\n\r\n", "line feed behind size": "5\nhello\r\n0\r\n\r\n", "return behind size": "5\rhello\r\n0\r\n\r\n", "more than said": "4\r\nhello\r\n0\r\n\r\n",
		"line feed behind data": "5\r\nhello\n0\r\n\r\n", "null in an extension": "5;\x00\r\nhello\r\n0\r\n\r\n", "line feed in an extension": "5;a\nb\r\nhello\r\n0\r\n\r\n", "long extension": "5;" + strings.Repeat("x", 100_000) + "\r\nhello\r\n0\r\n\r\n",
		"line feed ends trailers": "0\r\nA: b\n\r\n", "bad trailer": "0\r\nA b\r\n\r\n", "folded trailer": "0\r\nA: b\r\n c\r\n\r\n", "many trailers": "0\r\n" + strings.Repeat("A: b\r\n", 5000) + "\r\n", "size never ends": strings.Repeat("0", 100_000),
	} {
		rows = append(rows, cut("chunk: "+name, post+"Transfer-Encoding: chunked\r\n\r\n"+body))
	}
	return rows
}

// fields is start lines, names, values and hosts.
func fields() (rows []row) {
	for name, text := range map[string]string{
		"two blanks": "GET  /x HTTP/1.1\r\nHost: target\r\n\r\n", "tab": "GET\t/x HTTP/1.1\r\nHost: target\r\n\r\n", "leading blank": " GET /x HTTP/1.1\r\nHost: target\r\n\r\n", "HTTP/1.2": "GET /x HTTP/1.2\r\nHost: target\r\n\r\n",
		"HTTP/3.0": "GET /x HTTP/3.0\r\nHost: target\r\n\r\n", "lower case": "GET /x http/1.1\r\nHost: target\r\n\r\n", "no version": "GET /x\r\n\r\n", "no target": "GET HTTP/1.1\r\nHost: target\r\n\r\n", "blank in the target": "GET /x y HTTP/1.1\r\nHost: target\r\n\r\n",
		"null in the target": "GET /\x00 HTTP/1.1\r\nHost: target\r\n\r\n", "fragment": "GET /x#y HTTP/1.1\r\nHost: target\r\n\r\n", "bad method": "G(T /x HTTP/1.1\r\nHost: target\r\n\r\n", "target without a slash": "GET x HTTP/1.1\r\nHost: target\r\n\r\n",
		"star": "GET * HTTP/1.1\r\nHost: target\r\n\r\n", "foreign scheme": "GET ftp://target/ HTTP/1.1\r\nHost: target\r\n\r\n", "file": "GET file:///etc/passwd HTTP/1.1\r\nHost: target\r\n\r\n", "user in the target": "GET http://a@target/ HTTP/1.1\r\nHost: target\r\n\r\n",
		"bad escape": "GET /%zz HTTP/1.1\r\nHost: target\r\n\r\n", "half an escape": "GET /% HTTP/1.1\r\nHost: target\r\n\r\n", "line feeds only": "GET /x HTTP/1.1\nHost: target\n\n", "no host": "GET /x HTTP/1.1\r\n\r\n", "two hosts": get + "Host: other\r\n\r\n",
		"same host twice": get + "Host: target\r\n\r\n", "blank in the host": "GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", "slash in the host": "GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n", "user in the host": "GET /x HTTP/1.1\r\nHost: a@target\r\n\r\n",
		"open bracket": "GET /x HTTP/1.1\r\nHost: [::1\r\n\r\n", "return in the version": "GET /x HTTP/1.1\r \nHost: target\r\n\r\n", "connect with a body": "CONNECT target:80 HTTP/1.1\r\nHost: target\r\nContent-Length: 4\r\n\r\nabcd",
		"connect with a path": "CONNECT /x HTTP/1.1\r\nHost: target\r\n\r\n", "two upgrades": get + "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n", "bad connection option": get + "Connection: a b\r\n\r\n",
		"many connection options": get + "Connection: " + strings.Repeat("a, ", 1000) + "b\r\n\r\n", "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 600), "SSH": "SSH-2.0-x\r\n", "noise": "\x00\x01\x02\x03\x04\x05\r\n\r\n",
	} {
		rows = append(rows, bad("line: "+name, text))
	}
	for _, c := range `(),/;<=>?@[\]{}"` {
		rows = append(rows, bad(fmt.Sprintf("%q in a name", c), get+"X"+string(c)+"Y: z\r\n\r\n"))
	}
	for _, c := range []byte{0, 1, 7, 8, 11, 12, 27, 127} {
		rows = append(rows, bad(fmt.Sprintf("byte %d in a value", c), get+"X: a"+string(rune(c))+"b\r\n\r\n"))
	}
	return rows
}

// sizes is too much of something, or too slow.
func sizes() []row {
	big := strings.Repeat("x", 1<<20)
	return []row{
		bad("head of a megabyte", get+"X: "+big+"\r\n\r\n"), bad("name of a megabyte", get+big+": x\r\n\r\n"), bad("target of a megabyte", "GET /"+big+" HTTP/1.1\r\nHost: target\r\n\r\n"),
		bad("method of a megabyte", big+" / HTTP/1.1\r\nHost: target\r\n\r\n"), bad("10000 fields", get+strings.Repeat("A: b\r\n", 10000)+"\r\n"), bad("host of 100 KB", "GET / HTTP/1.1\r\nHost: "+big[:100_000]+"\r\n\r\n"),
		{name: "http1 400 requests at once", want: []string{strings.TrimSuffix(strings.Repeat("200,", 400), ",")}, try: func(m *mesh) string { return raw(m, strings.Repeat(get+"\r\n", 400)) }},
		{name: "http1 300 heads that never end", want: []string{"open"}, try: func(m *mesh) string { return slow(m, 300, get+"X: ") }},
		{name: "http1 300 bodies that never end", want: []string{"open"}, try: func(m *mesh) string { return slow(m, 300, post+"Content-Length: 100\r\n\r\nx") }},
		{name: "http1 300 connections that say nothing", want: []string{"open"}, try: func(m *mesh) string { return slow(m, 300, "") }},
		{name: "http1 response is never read", want: []string{"open"}, try: func(m *mesh) string { return slow(m, 20, strings.Repeat(get+"X: "+big[:4000]+"\r\n\r\n", 200)) }},
	}
}

// slow opens connections that never come to an end, and while they are open asks for a canary.
func slow(m *mesh, n int, text string) string {
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for range n {
		c, err := net.Dial("tcp", m.published)
		if err != nil {
			return err.Error()
		}
		all = append(all, c)
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = io.WriteString(c, text) // nobody may take it
	}
	if err := m.canary(); err != nil {
		return err.Error()
	}
	return "open"
}

// identityFields: who says by a field who he is is not believed, and the program does not hear of it.
func identityFields() (rows []row) {
	for _, f := range []string{
		"X-Forwarded-Client-Cert: URI=spiffe://tulle.local/ns/default/sa/admin", "x_forwarded_client_cert: URI=x", "X.Forwarded.Client.Cert: URI=x", "x-forwarded_client.CERT: URI=x",
		"tulle-class: critical", "Tulle-Reason: none", "tulle_class: critical", "TULLE.HTTP: 2", "tulle-status: 200", "tulle-method: DELETE", "x-envoy-internal: true", "x_envoy_internal: true", "X-Envoy-External-Address: 10.0.0.1",
		"x-envoy-peer-metadata: AAAA", "x-envoy-peer-metadata-id: a", "x-envoy-downstream-service-cluster: admin", "x-envoy-downstream-service-node: admin", "x-envoy-original-dst-host: 127.0.0.1:1",
		"x-envoy-decorator-operation: x", "X-ENVOY_force.trace: 1", "x-envoy-original-path: /admin", "x_forwarded_for: 10.9.9.9", "X.Forwarded.For: 10.9.9.9", "x-forwarded_proto: https",
	} {
		name, _, _ := strings.Cut(strings.ToLower(f), ":")
		rows = append(rows, row{name: "field " + f, want: []string{"200"}, try: func(m *mesh) string {
			status, body := talk(m, get+f+"\r\n\r\n")
			if strings.Contains(body, "\n"+name+":") {
				return "the program got " + body
			}
			return status
		}})
	}
	for _, option := range []string{"x-forwarded-for", "x-request-id", "X-Forwarded-For, X-Request-Id, Host, Content-Length"} {
		rows = append(rows, row{name: "Connection: " + option, want: []string{"200"}, try: func(m *mesh) string {
			status, body := talk(m, get+"X-Forwarded-For: 10.9.9.9\r\nConnection: "+option+"\r\n\r\n")
			if !strings.Contains(body, "x-forwarded-for: ") || !strings.Contains(body, "x-request-id: ") || !strings.Contains(body, `"target"`) {
				return "the program got " + body
			}
			return status
		}})
	}
	return rows
}
