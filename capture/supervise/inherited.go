package supervise

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Inherited answers the descriptors above standard error that this process was started with and that its program
// is to have: a shell's <(...), sockets of a service manager. Whatever Go opens itself is close-on-exec.
func Inherited() []int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var fds []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}
