// Package control is the control plane in one process. This file is the list of its parts in the order in which a route
// meets them; docs/walks/route.md is the same with more words.
//
//	 1  YAML is read, defaulted, validated        api/decode, api/v1alpha1
//	 2  accepted and stored, all or nothing       httpapi, store (mem, etcd)
//	 3  the stored routes become an index         routes
//	 4  who answers to these names now            registry
//	 5  attachment, precedence, compilation       compile → model
//	 6  what one proxy may see                    snapshot
//	 7  when it goes                              push
//	 8  the wire                                  xds/resource, xds/delta, xds/server
//	 9  it arrives and becomes model again        xds/client, xds/delta, xds/resource
//	10  it is warmed, then in force               proxy/live
//	11  it matches                                proxy/router
//	12  and the author is told                    status
//
// Beside them: ca (who signs), attest (who is who), token (who may join from another machine), stats (what proxies saw on
// every edge), outage (how long failures last, as they learned), ratelimit (limits for the whole mesh), rollout (how
// weights move by themselves; rollout/drive moves them). The package itself only puts them together; the parts know nothing of each other but small interfaces,
// and compose.go is where they meet. One process per data folder: the folder is locked. A Plane is started once and
// closed once; everything it started has ended when Close answers. Start reading at Start, then compose.go.
package control
