// Package bootstrap is what a supervisor (tulle run) and its proxy (tulle proxy --supervised) say to each other:
// the bootstrap that a proxy starts from, the sockets that come with it, and the JSON lines that follow on the
// same link. It promises that nothing secret is ever in an argument or an environment variable, and that a
// proxy which is started again gets the very same sockets. It decides nothing. A Link may be used by one reader
// and any number of writers at once. Start reading at Bootstrap, then Message.
package bootstrap

import (
	"errors"
	"net/netip"
	"path/filepath"
)

// LinkFD is the file descriptor on which a supervised proxy finds its end of the link.
const LinkFD = 3

// ProxyCommand is what follows the binary's name when a supervisor starts a proxy.
var ProxyCommand = [...]string{"proxy", "--supervised"}

// Ports inside the namespace that tulle run makes.
const (
	OutboundPort = 15001 // every outgoing TCP connection is turned here
	DNSPort      = 15053 // every DNS query is turned here, UDP and TCP
)

// Where the test of capture (package selftest) connects to from inside: nobody but the proxy answers there, and only what is turned
// to it reaches it.
const ProbePort = 15021

// The addresses of that place.
var (
	ProbeV4 = netip.AddrFrom4([4]byte{169, 254, 7, 2})
	ProbeV6 = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x74, 15: 2})
)

// The program's own addresses in that namespace: what it sees as the local end of a connection that was turned.
var (
	OwnV4 = netip.AddrFrom4([4]byte{169, 254, 7, 1})
	OwnV6 = netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x74, 15: 1})
)

// Bootstrap is all that a proxy is told at its start.
type Bootstrap struct {
	Workload       string // unique in its namespace, kept when the proxy is started again: "reviews-v2-7f3kq"
	Namespace      string
	Service        string // "" only with a foreign bootstrap file
	Version        string // may be ""
	ServiceAccount string // the service's name unless given
	Labels         map[string]string
	Ports          []Port    // empty: a pure client, never announced as an endpoint
	Publish        []Publish // Sockets with RolePublish have the same Index
	Forward        []Forward // Sockets with RoleForward have the same Index
	Exclude        []Exclude // destinations that are relayed untouched: no sniffing, no routes
	Ready          string    // "" (the first port accepts), "tcp", or "http:/path"
	WaitFor        []string  // services, as written by the user: "reviews" or "reviews.default"

	Control Control
	DataDir string // of the control plane on this machine; proxies keep nothing in it but their admin socket

	Address    string // host that other proxies connect to, joined with the port of RoleMesh
	Metrics    string // host:port that RoleMetrics listens on; "": a free port of the machine's loopback
	Admin      string // path of the admin unix socket that RoleAdmin listens on
	AccessLog  bool   // JSON lines on stderr
	Workers    int    // event loops; 0: min(2, CPUs)
	ResolvConf string // the machine's /etc/resolv.conf, for names outside the mesh

	Supervisor int  // process id of the supervisor
	Program    int  // process id of the program once it has been released, else 0 (then CmdStarted follows)
	Withdrawn  bool // the workload has been withdrawn and is not to be announced again
	Announced  bool // the workload has been ready and is announced: say so from the first moment, without a probe
	Overlap    bool // a proxy serves the sockets already: touch them, and be ready, only when the control plane has answered
	Starts     int  // how many proxies this supervisor had started before this one: 0 the first time

	// Identity is what the proxy before this one sent with EventIdentity last, nil the first time. Secret: it travels
	// on the link and stays in memory, never in a file, an argument or the environment.
	Identity []byte `json:",omitempty"`

	// Probe is what proxies of this workload prove themselves with to the test of capture. Secret, as Identity. nil: from a supervisor
	// that knows no such test.
	Probe []byte `json:",omitempty"`
	// FailClosed: while the test of capture fails the workload takes no requests, and its network is cut off from every other.
	FailClosed bool `json:",omitempty"`

	// Security is what the proxy before this one sent with EventSecurity last: the policies that are in force until the control
	// plane says others. nil the first time.
	Security []byte `json:",omitempty"`

	Sockets []Socket // in the order in which their descriptors travel
}

// Port is one port of the service: what callers dial, and where the program listens inside its namespace.
type Port struct {
	Name     string // may be ""
	Port     uint16 // of the service
	Target   uint16 // of the program; the same unless given
	Protocol string // "http", "grpc", "tcp", "tls", or "" when nothing is declared
}

// Publish opens one port of the workload on the machine.
type Publish struct {
	Listen string // host:port as bound
	Port   uint16 // the service port that it leads to, always one of Ports
}

// Forward makes one port of the machine reachable on the program's own loopback.
type Forward struct {
	Listen uint16 // on 127.0.0.1 and ::1 of the program
	Target string // host:port, dialed by the proxy outside; 127.0.0.1 unless given
}

// Exclude is a destination that is relayed untouched. Exactly one of its fields is set.
type Exclude struct {
	Prefix netip.Prefix `json:",omitzero"`
	Port   uint16       `json:",omitempty"`
}

// Matches reports whether a connection to dst is excluded.
func (e Exclude) Matches(dst netip.AddrPort) bool {
	if e.Port != 0 {
		return e.Port == dst.Port()
	}
	return e.Prefix.IsValid() && e.Prefix.Contains(dst.Addr().Unmap())
}

// Control says where the control plane is and how to prove oneself to it.
type Control struct {
	Socket   string   // unix socket of a control plane on this machine (attestation and xDS by peer credentials), or ""
	Address  string   // host:port of one elsewhere, or ""
	Token    string   // join token for Address, used once; secret
	Ports    []uint16 // that the control plane with Socket listens on; the program is not let through to them
	RootsPEM string   // roots that Address is verified with, when the token does not pin them
}

// Role says what a socket is for.
type Role string

// Roles. The first seven live inside the namespace; all but RoleWorkload on its loopback, marked so that the rules let them pass; each
// of those comes once for IPv4 and once for IPv6 (V6 set; absent on a machine without IPv6). Those of
// the test of capture live there too, and are not marked, since the rules are to treat them as they treat the program.
const (
	RoleOutbound     Role = "outbound"      // TCP listener on OutboundPort; ask package origdst for the wanted address
	RoleDNSUDP       Role = "dns-udp"       // UDP socket on DNSPort
	RoleDNSTCP       Role = "dns-tcp"       // TCP listener on DNSPort
	RoleSeed         Role = "seed"          // see package seed: every connection into the namespace starts from it
	RoleSeedListener Role = "seed-listener" // likewise
	RoleForward      Role = "forward"       // TCP listener on the program's loopback for Forward[Index]
	RoleWorkload     Role = "workload"      // unix stream listener that only the program sees: the SPIFFE Workload API; V6 never set

	RoleProbeTCP Role = "probe-tcp" // TCP socket, not connected; once for each family
	RoleProbeUDP Role = "probe-udp" // UDP socket, likewise
	RoleLinks    Role = "links"     // netlink (route), to ask for interfaces
	RoleRules    Role = "rules"     // netlink (netfilter), to put the barrier up where the test fails and the workload is to fail closed
	RoleEvents   Role = "events"    // netlink that says when interfaces or routes (Index 0) or rules (Index 1) change; may be absent

	RoleMesh    Role = "mesh"    // TCP listener on the machine, mesh inbound (mTLS)
	RoleMetrics Role = "metrics" // TCP listener on the machine, at Metrics (/metrics, /ready)
	RolePublish Role = "publish" // TCP listener on the machine for Publish[Index]
	RoleAdmin   Role = "admin"   // unix stream listener at Admin
)

// Socket is one socket handed to the proxy: non-blocking, close-on-exec, never to be shut down with shutdown(2) (the
// supervisor holds the same open file description and gives it to the next proxy).
type Socket struct {
	Role  Role
	V6    bool
	Index int // for RolePublish and RoleForward
	Local string
	FD    int `json:"-"` // set by Receive
}

// Find answers the descriptor of the first socket with this role and family; ok is false if there is none.
// Sockets on the machine (RoleMesh, RoleMetrics, RolePublish, RoleAdmin) are found by role and index alone.
func (b *Bootstrap) Find(role Role, v6 bool, index int) (s Socket, ok bool) {
	for _, s := range b.Sockets {
		if s.Role != role || s.Index != index {
			continue
		}
		switch role {
		case RoleMesh, RoleMetrics, RolePublish, RoleAdmin:
			return s, true
		}
		if s.V6 == v6 {
			return s, true
		}
	}
	return Socket{}, false
}

// Cmd is what a supervisor tells its proxy.
type Cmd string

// Commands, with what the proxy answers. CmdRetire goes to a proxy beside which another one serves the sockets: accept
// nothing more, announce nothing more, let what is open end (Message.Within at most), say EventRetired, exit with 0.
const (
	CmdStarted  Cmd = "started"  // the program runs (Message.PID): probe its readiness, then announce it. No answer but EventAnnounced
	CmdWait     Cmd = "wait"     // wait until every one of Message.Services has a live endpoint: EventWaited, Error "" when all are there
	CmdWithdraw Cmd = "withdraw" // withdraw the workload, keep serving what is under way: EventWithdrawn when the callers know, within 2 s
	CmdGoodbye  Cmd = "goodbye"  // the program has ended: withdraw, drain for at most 2 s, exit with 0
	CmdRetire   Cmd = "retire"   // see above
)

// Event is what a proxy tells its supervisor.
type Event string

// Events.
const (
	EventReady     Event = "ready"     // all sockets are served; the program may start. Message.Version is the proxy's
	EventRetired   Event = "retired"   // everything has ended, or Message.Open connections are cut now
	EventWaited    Event = "waited"    // the answer to CmdWait
	EventAnnounced Event = "announced" // the workload has been ready for the first time and is registered
	EventIdentity  Event = "identity"  // the workload has a new identity (Message.Identity): keep it for the next proxy
	EventSecurity  Event = "security"  // the workload has other policies (Message.Security): keep them for the next proxy
	EventWithdrawn Event = "withdrawn" // the answer to CmdWithdraw
	EventFailed    Event = "failed"    // cannot work and starting again is no use; Error is one line for the user
)

// Message is one line on the link after the bootstrap. Exactly one of Cmd and Event is set. A receiver ignores what
// it does not know.
type Message struct {
	Cmd      Cmd      `json:"cmd,omitempty"`
	Event    Event    `json:"event,omitempty"`
	Services []string `json:"services,omitempty"`
	PID      int      `json:"pid,omitempty"`
	Error    string   `json:"error,omitempty"`
	Identity []byte   `json:"identity,omitempty"` // means something to proxies alone; secret
	Security []byte   `json:"security,omitempty"`
	Version  string   `json:"version,omitempty"`
	Within   int64    `json:"within,omitempty"` // milliseconds
	Open     int      `json:"open,omitempty"`
}

// ErrNotSupervised: the process was not started by a supervisor.
var ErrNotSupervised = errors.New("file descriptor 3 is not a supervisor's link; start the program with 'tulle run' or the proxy with 'tulle proxy --bootstrap FILE'")

// AdminSocket answers the path of the admin socket of a workload's proxy in a data folder.
func AdminSocket(dataDir, namespace, workload string) string {
	return filepath.Join(dataDir, "proxies", workload+"."+namespace+".sock")
}

// SupervisorSocket answers the path of the socket on which the supervisor of a workload takes orders; see package
// supervise. The data folder is hidden from the program.
func SupervisorSocket(dataDir, namespace, workload string) string {
	return filepath.Join(SupervisorDir(dataDir), workload+"."+namespace+".sock")
}

// SupervisorDir is the folder of those sockets.
func SupervisorDir(dataDir string) string { return filepath.Join(dataDir, "runs") }

// ControlSocket answers the path on which a control plane with this data folder listens for local proxies.
func ControlSocket(dataDir string) string { return filepath.Join(dataDir, "control.sock") }
