package control

// The walk of a route, from the file in which somebody wrote it to the proxies that enforce it. Each step is one
// package; read them in this order (docs/walks/route.md tells the same with an example).
//
//	 1  the file is read, defaulted and validated, every error with its line   api/decode, api/v1alpha1
//	 2  accepted: references are checked, all of a set of files or nothing      control/httpapi
//	 3  stored, with a revision                                                 control/store (mem, etcd)
//	 4  followed, and indexed by the Services that routes name                  control/routes
//	 5  who answers to these names now                                          control/registry
//	 6  attachment, precedence and conflicts; compiled to the model             control/compile
//	 7  what one proxy may see                                                  control/snapshot
//	 8  when it goes, and to whom                                               control/push
//	 9  the wire                                                                xds/resource, xds/delta, xds/server
//	10  at the proxy                                                            xds/client, proxy/live, proxy/router
//	11  the author is told                                                      control/status
//
// Beside the walk: control/ca signs identities, control/attest and control/token decide who gets one, and
// control/stats keeps what proxies report. compose.go plugs all of it together.
