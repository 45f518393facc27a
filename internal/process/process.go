// Package process answers what this process costs: processor, memory, files, goroutines. ok is false where the system does not tell.
// Stateless. Start reading at CPU.
package process

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
	"syscall"
)

// CPU answers the processor time, user and system, in seconds.
func CPU() (v float64, ok bool) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0, false
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, true
}

// Resident answers the resident memory in bytes, shared pages of files included.
func Resident() (float64, bool) { return memory("VmRSS:") }

// Private answers the resident memory that is this process's alone, in bytes.
func Private() (float64, bool) { return memory("RssAnon:") }

// OpenFiles answers how many file descriptors are open.
func OpenFiles() (float64, bool) {
	d, err := os.ReadDir("/proc/self/fd")
	return float64(len(d) - 1), err == nil // without the one that reads
}

// Goroutines answers how many there are.
func Goroutines() (float64, bool) { return sample("/sched/goroutines:goroutines") }

// Heap answers the bytes of the heap that objects use.
func Heap() (float64, bool) { return sample("/memory/classes/heap/objects:bytes") }

// Collections answers how many cycles the garbage collector has completed.
func Collections() (float64, bool) { return sample("/gc/cycles/total:gc-cycles") }

// memory answers a line of /proc/self/status in bytes.
func memory(line string) (float64, bool) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	_, rest, found := bytes.Cut(b, []byte("\n"+line))
	f := bytes.Fields(rest)
	if !found || len(f) == 0 {
		return 0, false
	}
	kib, err := strconv.ParseFloat(string(f[0]), 64)
	return kib * 1024, err == nil
}

func sample(name string) (float64, bool) {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0, false
	}
	return float64(s[0].Value.Uint64()), true
}
