//go:build !race

package observe_test

const forgotten = 100
