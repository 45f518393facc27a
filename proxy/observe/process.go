package observe

import (
	"github.com/tulle-mesh/tulle/internal/process"
	"github.com/tulle-mesh/tulle/telemetry"
)

// process answers the value of a metric of the process itself; ok is false where the system does not tell.
func (o *Observer) process(name string) (v float64, ok bool) {
	switch name {
	case telemetry.ProcessCPU:
		return process.CPU()
	case telemetry.ProcessMemory:
		return process.Resident()
	case telemetry.ProcessPrivate:
		return process.Private()
	case telemetry.ProcessOpenFiles:
		return process.OpenFiles()
	case telemetry.ProcessStart:
		return float64(o.began.UnixMilli()) / 1e3, true
	case telemetry.GoGoroutines:
		return process.Goroutines()
	case telemetry.GoHeap:
		return process.Heap()
	case telemetry.GoGarbageCollection:
		return process.Collections()
	}
	return 0, false
}
