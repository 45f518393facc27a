package model

import "time"

// RouteTable decides what happens to the requests for one port of a service. Routes are in order of
// precedence (Gateway API: exact path, longest prefix, method, number of header and query matches, age, name):
// the first that matches decides. A table without a route answers no_route.
type RouteTable struct {
	Name   PortName
	Routes []Route
}

// Route is one match of one rule, and what to do then.
type Route struct {
	Name     string // "HTTPRoute/default/cart", or "Service/default/cart" where no route is attached
	Rule     int    // index of the rule in its route
	Match    Match
	Filters  []Filter
	Backends []Backend // weights add up to more than 0, or the list is empty: then the answer is 500 no_backend
	Timeouts Timeouts
}

// Timeouts of a route; 0 is none.
type Timeouts struct {
	Request time.Duration // from the end of the request's head to the end of the response
	Attempt time.Duration // one attempt, from its pick to the end of its response head
}

// Backend is one weighted target of a route. Its filters run after those of the route.
type Backend struct {
	Cluster PortName
	Weight  uint32
	Filters []Filter
	Invalid bool // its reference does not resolve: its share of the requests is answered 500 no_backend
}

// PathKind says how a path is compared.
type PathKind uint8

// Path kinds. Prefix compares whole path elements (Gateway API PathPrefix); Regex is RE2, anchored at both ends.
const (
	PathPrefix PathKind = iota
	PathExact
	PathRegex
)

// Match holds when every part of it holds. Its zero value with Path "/" matches every request.
type Match struct {
	PathKind PathKind
	Path     string       // "/" with PathPrefix matches all
	Method   string       // "" matches all
	Headers  []FieldMatch // names in lower case
	Query    []FieldMatch
}

// FieldMatch compares one header or query parameter.
type FieldMatch struct {
	Name  string
	Value string
	Regex bool // RE2, anchored at both ends
}

// FilterKind names a filter.
type FilterKind uint8

// Filter kinds.
const (
	FilterRequestHeaders FilterKind = iota
	FilterResponseHeaders
)

// Filter is one step that an exchange passes through.
type Filter struct {
	Kind    FilterKind
	Headers HeaderChange // for the two header filters
}

// HeaderChange removes, then sets, then adds. Names keep the case in which the user wrote them.
type HeaderChange struct {
	Set    []Header
	Add    []Header
	Remove []string
}

// Header is a name and a value.
type Header struct{ Name, Value string }
