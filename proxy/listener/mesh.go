package listener

import (
	"strconv"
	"strings"

	"github.com/tulle-mesh/tulle/identity/spiffe"
	"github.com/tulle-mesh/tulle/model"
	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/loop"
	"github.com/tulle-mesh/tulle/proxy/policy"
	"github.com/tulle-mesh/tulle/proxy/relay"
	"github.com/tulle-mesh/tulle/proxy/sniff"
)

// domain ends the server names that proxies call each other.
const domain = ".mesh.tulle"

// ServerName answers the SNI for a port of a workload: "p8080.cart-v1-7f3kq.default.mesh.tulle".
func ServerName(port uint16, workload, namespace string) string {
	return "p" + strconv.Itoa(int(port)) + "." + workload + "." + namespace + domain
}

// ParseServerName is the inverse of ServerName.
func ParseServerName(sni string) (port uint16, workload, namespace string, ok bool) {
	rest, ok := strings.CutSuffix(sni, domain)
	if !ok || rest == "" || rest[0] != 'p' {
		return 0, "", "", false
	}
	label, rest, ok := strings.Cut(rest[1:], ".")
	n, err := strconv.ParseUint(label, 10, 16)
	if !ok || err != nil || n == 0 || strconv.Itoa(int(n)) != label {
		return 0, "", "", false
	}
	workload, namespace, ok = strings.Cut(rest, ".")
	if !ok || workload == "" || namespace == "" || strings.Contains(namespace, ".") {
		return 0, "", "", false
	}
	return uint16(n), workload, namespace, true
}

// Secure is a connection on which another proxy has proven who it is; *mtls.Conn is one. All but SetHandler and
// the other methods of loop.Conn are valid after Opened.
type Secure interface {
	loop.Conn
	PeerID() spiffe.ID
	ServerName() string
}

// Mesh is where other proxies call. It is shared by all loops of a process and safe for concurrent use after it
// has been made.
type Mesh struct {
	Workload  string
	Namespace string
	Workers   []*Worker
	// Handshake begins the server's side of TLS on raw, which it becomes the handler of (mtls.Handshakes.Server).
	Handshake func(raw loop.Conn, h loop.Handler) Secure
}

// Known reports whether a server name is a port of this workload: mtls.ServerOptions.Known.
func (m *Mesh) Known(sni string) bool {
	port, workload, namespace, ok := ParseServerName(sni)
	if !ok || workload != m.Workload || namespace != m.Namespace || len(m.Workers) == 0 {
		return false
	}
	_, ok = m.Workers[0].cfg.Ports(port)
	return ok
}

// Accept serves a connection from another proxy on the calmest loop: few connections with much on each are spread badly by the
// kernel.
func (m *Mesh) Accept(in loop.Incoming) {
	w := loop.Calmest(m.Workers[0], m.Workers)
	in.Adopt(w.cfg.Loop, func(raw loop.Conn) loop.Handler {
		i := &inbound{mesh: m, w: w}
		i.timer.Expired = i.end
		i.conn = m.Handshake(raw, i)
		return nil
	})
}

// inbound is a connection from another proxy until its first byte.
type inbound struct {
	mesh  *Mesh
	w     *Worker
	conn  Secure
	own   OwnPort
	peer  Peer
	from  *policy.Caller
	timer loop.Timer
	over  bool
}

// Opened implements loop.Handler: the handshake is done.
func (i *inbound) Opened() {
	port, workload, namespace, ok := ParseServerName(i.conn.ServerName())
	if ok {
		i.own, ok = i.w.cfg.Ports(port)
	}
	if !ok || workload != i.mesh.Workload || namespace != i.mesh.Namespace {
		i.refuse(failure.UnknownPort)
		return
	}
	id, from := i.w.caller(i.conn.PeerID(), i.conn, i.own.Service.Port)
	i.peer = Peer{ID: id.String(), Service: model.ServiceName{Namespace: id.Namespace, Name: id.ServiceAccount}}
	i.from = from
	i.w.blanks[i] = struct{}{}
	i.w.cfg.Loop.Arm(&i.timer, i.w.cfg.BlankIdle)
}

// Data implements loop.Handler: the first byte decides.
func (i *inbound) Data(p []byte) int {
	if i.over {
		return 0
	}
	if p[0] != sniff.Preface[0] && p[0] != relay.OpenByte {
		i.refuse(failure.BadRequest)
		return 0
	}
	if why := i.w.cfg.Connect(i.own.Port, i.w.cfg.Loop.Now()); why != failure.None {
		i.refuse(why)
		return 0
	}
	i.leave()
	var h loop.Handler
	if p[0] == sniff.Preface[0] {
		h = i.w.cfg.HTTP.Serve(i.conn, Context{
			Direction: record.Inbound, HTTP2: true, Protocol: i.own.Protocol, Remote: i.conn.Remote(),
			Wanted: i.conn.Local(), Own: i.own, Peer: i.peer, Caller: i.from, MTLS: true,
		})
	} else {
		rec := &record.Record{}
		rec.Reset()
		rec.Direction, rec.TCP, rec.MTLS = record.Inbound, true, true
		rec.Source, rec.SourceID, rec.From = i.peer.Service, i.peer.ID, i.from.IP
		rec.Federated = i.from.Federated
		rec.Destination, rec.DestinationID = i.own.Service.Service, i.w.cfg.SelfID
		rec.Port, rec.Protocol = i.own.Service.Port, i.own.Protocol
		h = i.w.server.Serve(i.conn, i.own.Port, i.from, rec)
	}
	i.conn.SetHandler(h)
	return 0
}

// EOF implements loop.Handler: it stayed blank.
func (i *inbound) EOF() { i.conn.Close() }

// Writable implements loop.Handler.
func (i *inbound) Writable() {}

// Closed implements loop.Handler.
func (i *inbound) Closed(err error) {
	if !i.over && i.own.Port == 0 && err != nil {
		i.w.cfg.Log.Debug("no mesh connection", "from", i.remote(), "error", err)
		i.w.cfg.Observer.Refused(failure.TLSFailed)
	}
	i.leave()
}

func (i *inbound) remote() string {
	if i.conn == nil {
		return ""
	}
	return i.conn.Remote().String()
}

func (i *inbound) refuse(why failure.Reason) {
	i.leave()
	i.w.cfg.Observer.Refused(why)
	i.conn.Reset()
}

// end gives up a connection that is blank. Its peer may just have sent the first bytes of a client on it: a reset tells it
// that nobody has read them, an end in order would look like the answer.
func (i *inbound) end() { i.conn.Reset() }

func (i *inbound) leave() {
	i.over = true
	i.w.cfg.Loop.Disarm(&i.timer)
	delete(i.w.blanks, i)
}
