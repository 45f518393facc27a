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
	// If it is allowed, the request is changed, in this order: its fields, then those of Remove are taken out, then its query.
	Edits       []FieldEdit
	Remove      []string
	SetQuery    []Header // parameters, in the place of those that are there
	RemoveQuery []string // parameters
	// Status and Body answer what is not allowed. Status 0: as without an authorizer.
	Status int
	Body   []byte
	// Response changes the fields of the response: the program's to what is allowed, ours to what is not.
	Response []FieldEdit
}

// FieldEdit changes the fields of a name.
type FieldEdit struct {
	Name, Value string // Name is in lower case
	How         FieldAction
}

// FieldAction is what becomes of the fields that are there (envoy.config.core.v3.HeaderValueOption.HeaderAppendAction).
type FieldAction uint8

// Actions.
const (
	FieldSet     FieldAction = iota // it takes their place, or is added
	FieldAppend                     // it is added beside them
	FieldDefault                    // it is added if there are none
	FieldReplace                    // it takes their place if there are any
)
