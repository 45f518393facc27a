//go:build race

package observe_test

// forgotten is how many buffers of 5000 a sync.Pool may lose: with the race detector it forgets one in four.
const forgotten = 5000
