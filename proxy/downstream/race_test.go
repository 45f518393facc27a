//go:build race

package downstream_test

// allowedTLS is how many allocations a request over TLS may make: with the race detector sync.Pool, which crypto/tls
// uses, forgets on purpose.
const allowedTLS = 8

// allowedPool: with the race detector a sync.Pool forgets one in four.
const allowedPool = 1
