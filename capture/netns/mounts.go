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

// mounts changes what the program sees of the file system: the folders in hide are empty, name-service daemons are
// out of reach, and /etc/resolv.conf is ours.
func mounts(hide []string, resolvConf string) (warnings []string, err error) {
	cwd, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("working folder: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	if resolvConf != "" {
		if warn, err := mountResolvConf(resolvConf); err != nil {
			return nil, fmt.Errorf("/etc/resolv.conf: %w", err)
		} else if warn != "" {
			warnings = append(warnings, warn)
		}
	}
	for _, path := range nameServices {
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		if err := unix.Mount("/dev/null", path, "", unix.MS_BIND, ""); err != nil {
			return nil, fmt.Errorf("hide %s: %w", path, err)
		}
	}
	for _, dir := range hide {
		if err := hideFolder(dir); err != nil {
			return nil, fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	// A working folder inside a hidden one would still be open underneath.
	if err := os.Chdir(cwd); err != nil {
		return nil, fmt.Errorf("working folder %s is hidden from the program: start it elsewhere (%w)", cwd, err)
	}
	return warnings, nil
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
