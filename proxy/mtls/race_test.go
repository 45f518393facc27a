//go:build race

package mtls_test

// allowed is how many allocations a round may make: with the race detector sync.Pool, which crypto/tls uses,
// forgets on purpose.
const allowed = 4
