//go:build !race

package downstream_test

// allowedTLS is how many allocations a request over TLS may make.
const allowedTLS = 0

const allowedPool = 0
