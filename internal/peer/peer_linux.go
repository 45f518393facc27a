// Package peer says who is at the other end of a unix socket, beyond the user id: a program that was put into
// a namespace of its own has the user id of the one who put it there and must not have that one's rights.
// Stateless. Start reading at Trusted.
package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// soPeerPidfd is SO_PEERPIDFD (Linux 6.5).
const soPeerPidfd = 77

// ErrStranger is the answer for whoever is not trusted; errors that wrap it say why.
var ErrStranger = errors.New("refused")

// Credentials are those of the process that connected, as this process's namespaces see it.
type Credentials struct {
	PID      int
	UID, GID uint32
}

// Trusted answers the credentials of a connection's peer if it is this user or root, and in the network and
// user namespace of this process. The process is held while it is looked at, so that its id cannot become
// another's meanwhile.
func Trusted(c *net.UnixConn) (Credentials, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Credentials{}, err
	}
	var cred *unix.Ucred
	pidfd, credErr := -1, error(nil)
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, soPeerPidfd); err == nil {
			pidfd = n
		}
	}); err != nil {
		return Credentials{}, err
	}
	if pidfd >= 0 {
		defer unix.Close(pidfd)
	}
	if credErr != nil {
		return Credentials{}, fmt.Errorf("%w: no peer credentials: %w", ErrStranger, credErr)
	}
	who := Credentials{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
	if err := judge(who); err != nil {
		return who, err
	}
	if pidfd >= 0 && unix.PidfdSendSignal(pidfd, 0, nil, 0) == unix.ESRCH {
		return who, fmt.Errorf("%w: the process has ended", ErrStranger)
	}
	return who, nil
}

func judge(who Credentials) error {
	own := uint32(os.Geteuid())
	switch {
	case who.PID <= 0:
		return fmt.Errorf("%w: the process is in a PID namespace that is not visible from here", ErrStranger)
	case who.UID != own && who.UID != 0:
		return fmt.Errorf("%w: user id %d is neither %d nor root", ErrStranger, who.UID, own)
	}
	for _, ns := range []string{"net", "user"} {
		mine, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			return err
		}
		theirs, err := os.Readlink("/proc/" + strconv.Itoa(who.PID) + "/ns/" + ns)
		switch {
		case errors.Is(err, os.ErrPermission) && who.UID == 0 && own != 0:
			// Root of this user namespace, which an ordinary user may not look at and need not: it can do
			// everything anyway. The root of a nested namespace is seen with the uid that it is mapped to.
		case err != nil:
			return fmt.Errorf("%w: its %s namespace cannot be seen: %w", ErrStranger, ns, err)
		case mine != theirs:
			return fmt.Errorf("%w: process %d is in another %s namespace", ErrStranger, who.PID, ns)
		}
	}
	return nil
}
