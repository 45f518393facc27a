package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// nameServices are unix sockets by which libc asks daemons for names instead of sending DNS: systemd-resolved and nscd.
var nameServices = []string{
	"/run/systemd/resolve/io.systemd.Resolve",
	"/run/nscd/socket",
	"/var/run/nscd/socket",
}

// mounts changes what the program sees of the file system: the folders in hide are empty but for endpoint, name-service
// daemons are out of reach, and /etc/resolv.conf is ours. It answers the descriptor that listens at endpoint, -1 without one.
func mounts(hide []string, endpoint, resolvConf string) (warnings []string, listener int, err error) {
	cwd, err := os.Getwd()
	if err != nil {
		return nil, -1, fmt.Errorf("working folder: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, -1, fmt.Errorf("make mounts private: %w", err)
	}
	if resolvConf != "" {
		if warn, err := mountResolvConf(resolvConf); err != nil {
			return nil, -1, fmt.Errorf("/etc/resolv.conf: %w", err)
		} else if warn != "" {
			warnings = append(warnings, warn)
		}
	}
	for _, path := range nameServices {
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := unix.Mount("/dev/null", path, "", unix.MS_BIND, ""); err != nil {
			return nil, -1, fmt.Errorf("hide %s: %w", path, err)
		}
	}
	last := ""
	if endpoint != "" {
		last = filepath.Dir(endpoint)
	}
	for _, dir := range hide {
		if dir == last {
			continue
		}
		if err := hideFolder(dir); err != nil {
			return nil, -1, fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	if listener, err = openEndpoint(endpoint); err != nil { // after the others: none of them covers it
		return nil, -1, fmt.Errorf("the Workload API at %s: %w", endpoint, err)
	}
	// A working folder inside a hidden one would still be open underneath.
	if err := os.Chdir(cwd); err != nil {
		return nil, -1, fmt.Errorf("working folder %s is hidden from the program: start it elsewhere (%w)", cwd, err)
	}
	return warnings, listener, nil
}

// maxSocketPath is what fits into a unix socket's address with its final zero.
const maxSocketPath = 107

// openEndpoint hides the folder of path behind a file system of the program's own with nothing in it but a unix socket that
// listens, for the program's user alone. Nobody outside of the program's mount namespace has a path to it. "" is none.
func openEndpoint(path string) (fd int, err error) {
	if path == "" {
		return -1, nil
	}
	if len(path) > maxSocketPath {
		return -1, fmt.Errorf("the path is longer than the %d bytes that a unix socket may have; choose a shorter --data-dir", maxSocketPath)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return -1, err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size=4k,nr_inodes=3,mode=0755"); err != nil {
		return -1, err
	}
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err == nil {
		if err = os.Chmod(path, 0o600); err == nil {
			err = unix.Listen(fd, 64)
		}
	}
	if err == nil {
		err = os.Chmod(dir, 0o555)
	}
	if err == nil { // a socket can be connected to on a read-only file system, and not be taken away or replaced
		err = unix.Mount("", dir, "", flags|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// hideFolder puts an empty, read-only file system over dir; one that does not exist needs nothing.
func hideFolder(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Mount("tmpfs", real, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "size=4k,nr_inodes=2,mode=0555")
}

// mountResolvConf binds a file with the given content over /etc/resolv.conf. The file lives on a small file system
// that no path leads to any more afterwards.
func mountResolvConf(content string) (warning string, err error) {
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return "the machine has no /etc/resolv.conf, so the program uses no search domains: write names in full, for example reviews.default.svc.cluster.local", nil
	}
	if err != nil {
		return "", err
	}
	fd, err := unix.Open(target, unix.O_PATH|unix.O_CLOEXEC, 0) // the small file system may cover the target's folder
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	scratch := ""
	for _, dir := range []string{"/tmp", "/run", "/var", "/mnt", "/etc"} {
		if err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64k,mode=0755"); err == nil {
			scratch = dir
			break
		}
	}
	if scratch == "" {
		return "", err
	}
	defer unix.Unmount(scratch, unix.MNT_DETACH)
	file := filepath.Join(scratch, "resolv.conf")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		return "", err
	}
	if err := os.Chmod(file, 0o644); err != nil { // whatever the umask is
		return "", err
	}
	return "", unix.Mount(file, fmt.Sprintf("/proc/self/fd/%d", fd), "", unix.MS_BIND, "")
}
