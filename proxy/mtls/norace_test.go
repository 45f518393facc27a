//go:build !race

package mtls_test

// allowed is how many allocations a round may make.
const allowed = 0
