package observe

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	"github.com/tulle-mesh/tulle/model/record"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Connection is a downstream connection as access logs and x-forwarded-client-cert tell of it. It is made once per
// connection, belongs to its loop, and computes a text when it is first asked for.
type Connection struct {
	ID     uint64         // unique in the process
	Remote netip.AddrPort // the other end (or who a PROXY header says it is)
	Direct netip.AddrPort // the other end of the TCP connection; zero: Remote
	Local  netip.AddrPort
	// TLS is what the handshake agreed on; nil: a plain connection.
	TLS *tls.ConnectionState
	// Certificate is ours on this connection; nil: not known.
	Certificate *x509.Certificate
	ServerName  string // SNI, also of a connection whose TLS is not terminated here

	texts     map[text]string
	forwarded []byte
}

// text is something about a certificate that is computed once.
type text uint8

const (
	textSubject text = iota
	textIssuer
	textSerial
	textHash
	textURIs
	textNames
	textLocalURIs
	textLocalSubject
)

// Peer answers the certificate that the peer has shown; nil: none.
func (c *Connection) Peer() *x509.Certificate {
	if c == nil || c.TLS == nil || len(c.TLS.PeerCertificates) == 0 {
		return nil
	}
	return c.TLS.PeerCertificates[0]
}

// PeerHash answers the SHA-256 of the peer's certificate in hex, "" if it has shown none.
func (c *Connection) PeerHash() string { return c.about(textHash) }

// PeerSubject answers the subject of the peer's certificate (RFC 2253), "" if it has shown none.
func (c *Connection) PeerSubject() string { return c.about(textSubject) }

// about answers one text, "" if there is none.
func (c *Connection) about(t text) string {
	if c == nil {
		return ""
	}
	s, known := c.texts[t]
	if known {
		return s
	}
	cert := c.Peer()
	if t == textLocalURIs || t == textLocalSubject {
		cert = c.Certificate
	}
	if cert != nil {
		s = describe(cert, t)
	}
	if c.texts == nil {
		c.texts = map[text]string{}
	}
	c.texts[t] = s
	return s
}

func describe(cert *x509.Certificate, t text) string {
	switch t {
	case textSubject, textLocalSubject:
		return distinguished(cert.RawSubject, cert.Subject)
	case textIssuer:
		return distinguished(cert.RawIssuer, cert.Issuer)
	case textSerial:
		return hex.EncodeToString(cert.SerialNumber.Bytes())
	case textHash:
		sum := sha256.Sum256(cert.Raw)
		return hex.EncodeToString(sum[:])
	case textURIs, textLocalURIs:
		var all []string
		for _, u := range cert.URIs {
			all = append(all, u.String())
		}
		return strings.Join(all, ",")
	}
	return strings.Join(cert.DNSNames, ",")
}

// distinguished writes a name as RFC 2253 does, its parts in the order of the certificate: pkix.Name has forgotten that one.
func distinguished(raw []byte, name pkix.Name) string {
	var parts pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &parts); err != nil || len(rest) > 0 {
		return name.String()
	}
	return parts.String()
}

// Entry is what one line of an access log is made of: an exchange, or a connection that was relayed or refused
// (Record.TCP). It is not kept. Only Record is required.
type Entry struct {
	Record   *record.Record
	Conn     *Connection
	Client   netip.AddrPort  // who the request is from, as trusted proxies say; zero: Conn.Remote
	Version  message.Version // that the client spoke
	Request  *message.Head
	Response *message.Head // the fields that Logs.Keep has kept
	Trailers *message.Head // likewise
	Upstream netip.AddrPort
	Received time.Duration // loop time when the request was complete; 0: never
	Details  string        // RESPONSE_CODE_DETAILS; "": told by Record.Reason
	Cause    string        // why there was no connection to the upstream
}

// Forwarded answers what make makes of c, which is asked once: the element of x-forwarded-client-cert.
func (c *Connection) Forwarded(make func(c *Connection) []byte) []byte {
	if c.forwarded == nil {
		c.forwarded = make(c)
	}
	return c.forwarded
}
