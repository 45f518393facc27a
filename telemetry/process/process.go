// Package process answers the metrics of the process itself, as both planes serve them: processor, memory, files, goroutines. It
// reads what the system and the runtime tell and keeps nothing. Safe for concurrent use. Start reading at Value.
package process

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
	"syscall"
	"time"

	"github.com/tulle-mesh/tulle/telemetry"
)

// Value answers the metric with a name of telemetry, for a process that began then; ok is false where it is none of the process or
// the system does not tell.
func Value(name string, began time.Time) (v float64, ok bool) {
	switch name {
	case telemetry.ProcessCPU:
		return cpu()
	case telemetry.ProcessMemory:
		return resident()
	case telemetry.ProcessPrivate:
		return private()
	case telemetry.ProcessOpenFiles:
		return openFiles()
	case telemetry.ProcessStart:
		return float64(began.UnixMilli()) / 1e3, true
	case telemetry.GoGoroutines:
		return goroutines()
	case telemetry.GoHeap:
		return heap()
	case telemetry.GoGarbageCollection:
		return collections()
	}
	return 0, false
}

// cpu answers the processor time, user and system, in seconds.
func cpu() (v float64, ok bool) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0, false
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, true
}

// resident answers the resident memory in bytes, shared pages of files included.
func resident() (float64, bool) { return memory("VmRSS:") }

// private answers the resident memory that is this process's alone, in bytes.
func private() (float64, bool) { return memory("RssAnon:") }

// openFiles answers how many file descriptors are open.
func openFiles() (float64, bool) {
	d, err := os.ReadDir("/proc/self/fd")
	return float64(len(d) - 1), err == nil // without the one that reads
}

// goroutines answers how many there are.
func goroutines() (float64, bool) { return sample("/sched/goroutines:goroutines") }

// heap answers the bytes of the heap that objects use.
func heap() (float64, bool) { return sample("/memory/classes/heap/objects:bytes") }

// collections answers how many cycles the garbage collector has completed.
func collections() (float64, bool) { return sample("/gc/cycles/total:gc-cycles") }

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
