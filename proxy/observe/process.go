package observe

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
	"syscall"

	"github.com/tulle-mesh/tulle/telemetry"
)

// process answers the value of a metric of the process itself; ok is false where the system does not tell.
func (o *Observer) process(name string) (v float64, ok bool) {
	switch name {
	case telemetry.ProcessCPU:
		var u syscall.Rusage
		if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
			return 0, false
		}
		return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, true
	case telemetry.ProcessMemory:
		return memory("VmRSS:")
	case telemetry.ProcessPrivate:
		return memory("RssAnon:")
	case telemetry.ProcessOpenFiles:
		d, err := os.ReadDir("/proc/self/fd")
		return float64(len(d) - 1), err == nil // without the one that reads
	case telemetry.ProcessStart:
		return float64(o.began.UnixMilli()) / 1e3, true
	case telemetry.GoGoroutines:
		return runtimeMetric("/sched/goroutines:goroutines")
	case telemetry.GoHeap:
		return runtimeMetric("/memory/classes/heap/objects:bytes")
	case telemetry.GoGarbageCollection:
		return runtimeMetric("/gc/cycles/total:gc-cycles")
	}
	return 0, false
}

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

func runtimeMetric(name string) (float64, bool) {
	s := []metrics.Sample{{Name: name}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0, false
	}
	return float64(s[0].Value.Uint64()), true
}
