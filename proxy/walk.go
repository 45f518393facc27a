// Package proxy is the data plane of one workload. This file is the list of its parts in the order in which a
// request meets them; docs/walks/request.md is the same with more words.
//
//	 0  the kernel turns the connection to us     capture (nft, origdst, seed), dns for the name before it
//	 1  accept; find the wanted address           listener, live
//	 2  look at the first bytes                   sniff
//	 3  handshake; who is it                      mtls
//	 4  serve the connection                      downstream
//	 5  bytes become a message                    http1, http2, hpack → message
//	 6  the exchange begins                       exchange
//	 7  may it? how much (inbound)?               policy → model/authz; admission → limit
//	    rewritten how?                            filter/headers
//	 8  which route; what it does itself          router, exchange
//	 9  which attempt                             exchange, retry, kin
//	10  which endpoint                            cluster → balancer
//	11  which connection                          pool → upstream, keepalive
//	12  bodies both ways, with back-pressure      exchange, buffer
//	13  it failed: what do we say                 failure
//	14  what we remember                          observe
//
// Beside them: loop (the event loop), relay (TCP), admin (metrics, questions about this proxy), watch (health checks, ejection). The package itself
// only puts them together (Start), and follows the workload through its life (life.go). It decides nothing about a
// request. Start reading at Start.
package proxy
