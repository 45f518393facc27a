// Package steady measures, for tests, what a steady state allocates. It counts over the whole process, because a
// request passes through several goroutines; so it also sees what the runtime, other tests and a collection at the
// wrong moment (which empties every sync.Pool) allocate. Those come and go, while a path that allocates does so every
// time: the least of several measurements is the path's. It never fails a test. Start reading at Allocations.
package steady

import "runtime"

// windows is how often Allocations measures.
const windows = 5

// Allocations answers how many allocations the process makes during run, which does the same amount of work every
// time: the least of five measurements, or of as many as it takes to find one that is at most enough.
func Allocations(enough uint64, run func()) uint64 {
	least := ^uint64(0)
	for range windows {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		run()
		runtime.ReadMemStats(&after)
		if least = min(least, after.Mallocs-before.Mallocs); least <= enough {
			break
		}
	}
	return least
}
