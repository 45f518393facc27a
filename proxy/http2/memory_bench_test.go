package http2_test

import (
	"runtime"
	"testing"
)

// BenchmarkIdleConn reports what a pair of connections holds after it has served and is idle.
func BenchmarkIdleConn(b *testing.B) {
	const n = 200
	var before, after runtime.MemStats
	for b.Loop() {
		keep := make([]func(), n)
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range keep {
			keep[i] = exchanges(b, 1)
			for range 20 {
				keep[i]()
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(keep)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/pair")
}
