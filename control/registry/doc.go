// Package registry knows who answers to which name now: workloads by their sessions (DESIGN 5, "Who is
// alive"), the services that they form, and the virtual addresses of those. The decisions are in core, a state
// machine that gets the time as an argument; Registry is the thin shell around it with a lock, a timer and the
// store. It never talks to a proxy. Start reading at View, then core.go.
package registry
