package model

import "time"

// AuthorizerQuestion is what an external authorizer is asked about one request. It is not changed once it has been asked.
type AuthorizerQuestion struct {
	Authorizer *Authorizer
	ID         string // x-request-id
	Method     string
	Path       string // with its query
	Host       string
	Scheme     string
	Protocol   string         // "HTTP/1.1", "HTTP/2"
	Fields     []Header       // names in lower case
	Body       []byte         // its beginning
	Partial    bool           // there is more of it
	Source     AuthorizerPeer // who asks
	Target     AuthorizerPeer // the workload
	ServerName string
	At         time.Time
}

// AuthorizerPeer is one end of a connection.
type AuthorizerPeer struct {
	Principal string // SPIFFE ID; "": none
	Service   string // "cart.shop"
	Address   string // without a port
	Port      uint16
}

// AuthorizerAnswer is what it says.
type AuthorizerAnswer struct {
	Allowed bool
	// If it is allowed, the request is changed: Remove first, then Set and Append.
	Remove      []string
	Set, Append []Header
	// If it is not, it is answered with these.
	Status int // 0: as without an authorizer
	Fields []Header
	Body   []byte
}
