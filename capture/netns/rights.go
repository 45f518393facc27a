package netns

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// dropped is what a program that runs as root loses. With any of these it could leave the namespace, change its
// rules, or read the control plane's memory and folder (DAC_READ_SEARCH opens files by handle, past every mount;
// root keeps DAC_OVERRIDE, so it still reads what it could). The rest stays: nginx and PostgreSQL need SETUID, CHOWN
// and the like.
var dropped = []int{
	unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_SYS_MODULE,
	unix.CAP_DAC_READ_SEARCH, unix.CAP_PERFMON, unix.CAP_BPF,
}

// dropRights takes from the calling thread what the program must not have. Without root that is every capability,
// and no setuid program gives any back.
func dropRights(userNamespace bool) error {
	have, err := capabilities()
	if err != nil {
		return err
	}
	var keep uint64
	if !userNamespace {
		keep = have
		for _, c := range dropped {
			keep &^= 1 << c
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	if err := dropBounding(keep, userNamespace); err != nil {
		return err
	}
	if err := setCapabilities(keep); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if userNamespace {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	return nil
}

// dropBounding takes capabilities out of the bounding set: all of them, or those in dropped.
func dropBounding(keep uint64, all bool) error {
	for c := range 64 {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil {
			return nil // beyond the last capability of this kernel
		}
		if in == 0 || !all && !isDropped(c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

func isDropped(c int) bool {
	for _, d := range dropped {
		if c == d {
			return true
		}
	}
	return false
}

// capabilities answers the permitted set of the calling thread.
func capabilities() (uint64, error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	return uint64(d[0].Permitted) | uint64(d[1].Permitted)<<32, nil
}

// setCapabilities makes keep the permitted and effective set and empties the inheritable one: as root, exec gives
// back what the bounding set allows.
func setCapabilities(keep uint64) error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	d := [2]unix.CapUserData{
		{Effective: uint32(keep), Permitted: uint32(keep)},
		{Effective: uint32(keep >> 32), Permitted: uint32(keep >> 32)},
	}
	return unix.Capset(&h, &d[0])
}
