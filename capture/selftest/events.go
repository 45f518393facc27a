package selftest

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

// Events calls changed whenever interfaces, routes or rules of the namespace may have changed, from goroutines of its own, until
// stop, which waits for them. It takes copies of the bootstrap's sockets; where there are none it never calls.
func Events(b *bootstrap.Bootstrap, changed func()) (stop func()) {
	var files []*os.File
	ended := make(chan struct{}, len(b.Sockets))
	for i := range b.Sockets {
		s := &b.Sockets[i]
		if s.Role != bootstrap.RoleEvents {
			continue
		}
		fd, err := unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(fd), "netlink events") // it does not block, so Close ends Read
		files = append(files, f)
		go func() {
			defer func() { ended <- struct{}{} }()
			for p := make([]byte, 8<<10); ; {
				_, err := f.Read(p)
				if err != nil && !errors.Is(err, unix.ENOBUFS) { // of those there were too many
					return
				}
				changed()
			}
		}()
	}
	return func() {
		for _, f := range files {
			f.Close()
		}
		for range files {
			<-ended
		}
	}
}
