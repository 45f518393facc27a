package exchange

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// sendElsewhere answers a request with where the client is to go instead (Gateway API: HTTPRequestRedirectFilter; Envoy:
// RedirectAction).
func (x *Exchange) sendElsewhere(d *model.Redirect) {
	x.details = "direct_response"
	h := &x.w.reply.head
	h.Reset()
	h.Version, h.Status = message.HTTP11, d.Status
	n := len(x.notes)
	x.notes = x.appendLocation(x.notes, d)
	h.Add(nameLocation, x.notes[n:len(x.notes):len(x.notes)])
	x.made(h, nil)
}

// appendLocation appends the URL that the request is redirected to.
func (x *Exchange) appendLocation(b []byte, d *model.Redirect) []byte {
	was := x.head.Scheme
	if len(was) == 0 {
		was = schemeHTTP
	}
	if d.Scheme != "" {
		b = append(b, d.Scheme...)
	} else {
		b = append(b, was...)
	}
	scheme := string(was)
	if d.Scheme != "" {
		scheme = d.Scheme
	}
	b = append(b, "://"...)
	host := withoutPort(x.head.Authority)
	port := x.head.Authority[len(host):] // with its colon
	if d.Host != "" {
		b = append(b, d.Host...)
	} else {
		b = append(b, host...)
	}
	if d.AsEnvoy {
		b = x.portAsEnvoy(b, d, scheme, port)
	} else {
		b = appendPort(b, d, scheme, port)
	}
	return x.appendPlace(b, d)
}

// appendPort appends the port as Gateway API has it: the one that is said, else the scheme's own if a scheme is said, else
// the request's; the scheme's own is left out.
func appendPort(b []byte, d *model.Redirect, scheme string, port []byte) []byte {
	usual := usualPort(scheme)
	switch {
	case d.Port != 0:
		if d.Port != usual {
			b = strconv.AppendUint(append(b, ':'), uint64(d.Port), 10)
		}
	case d.Scheme != "" && usual != 0:
	case len(port) > 1 && !samePort(port, usual):
		b = append(b, port...)
	}
	return b
}

// portAsEnvoy appends the port as Envoy does.
func (x *Exchange) portAsEnvoy(b []byte, d *model.Redirect, scheme string, port []byte) []byte {
	switch {
	case d.Port != 0:
		return strconv.AppendUint(append(b, ':'), uint64(d.Port), 10)
	case d.Host != "":
		return b
	}
	was := "http"
	if x.secure {
		was = "https"
	}
	if scheme != was && samePort(port, usualPort(was)) {
		return b
	}
	return append(b, port...)
}

// samePort compares a port with its colon.
func samePort(port []byte, n uint16) bool {
	switch n {
	case 80:
		return string(port) == ":80"
	case 443:
		return string(port) == ":443"
	}
	return false
}

// usualPort answers the port that a URL of the scheme need not name; 0: there is none.
func usualPort(scheme string) uint16 {
	switch scheme {
	case "http":
		return 80
	case "https":
		return 443
	}
	return 0
}

// appendPlace appends path and query.
func (x *Exchange) appendPlace(b []byte, d *model.Redirect) []byte {
	path, query := x.head.Target, []byte(nil)
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path, query = path[:i], path[i:]
	}
	b = x.route.AppendRedirected(b, path)
	if d.StripQuery || d.AsEnvoy && d.Change == model.PathFull && strings.IndexByte(d.Path, '?') >= 0 {
		return b
	}
	return append(b, query...)
}
