package netns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Stage is a step on the way to a running program.
type Stage string

// Stages, in order.
const (
	StageClone    Stage = "make namespaces"
	StageShim     Stage = "start the shim"
	StageLoopback Stage = "bring up loopback" // the first call that needs a capability
	StageNetwork  Stage = "set up addresses and routes"
	StageSockets  Stage = "open sockets"
	StageRules    Stage = "install packet filter rules"
	StageMounts   Stage = "hide files from the program"
	StageDrop     Stage = "give up capabilities"
	StageExec     Stage = "execute the program"
)

// Facts are what a machine says about itself, as far as it matters to a refusal.
type Facts struct {
	Root          bool   // effective uid 0
	UserNamespace bool   // one was asked for
	MaxUserNS     string // user.max_user_namespaces, "" where unknown; likewise below
	MaxNetNS      string // user.max_net_namespaces
	UserNSClone   string // kernel.unprivileged_userns_clone (Debian, Arch)
	AppArmor      string // kernel.apparmor_restrict_unprivileged_userns (Ubuntu)
	Seccomp       bool   // this process runs under a seccomp filter, so in a container
	Proc          bool   // /proc is mounted
}

// ReadFacts asks the machine.
func ReadFacts(userNamespace bool) Facts {
	read := func(path string) string {
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
	status := read("/proc/self/status")
	return Facts{
		Root: os.Geteuid() == 0, UserNamespace: userNamespace,
		MaxUserNS:   read("/proc/sys/user/max_user_namespaces"),
		MaxNetNS:    read("/proc/sys/user/max_net_namespaces"),
		UserNSClone: read("/proc/sys/kernel/unprivileged_userns_clone"),
		AppArmor:    read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
		Seccomp:     strings.Contains(status, "Seccomp:\t2"),
		Proc:        status != "",
	}
}

// Explain turns a failure of Start, Sockets or Release into one line: what is forbidden, and what to do. It is pure.
func Explain(err error, stage Stage, f Facts) string {
	var e syscall.Errno
	errors.As(err, &e)
	denied := e == unix.EPERM || e == unix.EACCES
	switch {
	case !f.Proc:
		return "/proc is not mounted here: mount it with 'mount -t proc proc /proc', or run outside this chroot or container"
	case stage == StageClone:
		return explainClone(err, e, f)
	case denied && f.UserNamespace && f.AppArmor == "1" && stage != StageExec:
		return "Ubuntu's AppArmor forbids user namespaces to programs without a profile: allow them with 'sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0', or run as root"
	case stage == StageLoopback && denied && f.UserNamespace:
		return "a security module gives this program no rights in its own user namespace: allow user namespaces for it (AppArmor: userns, SELinux: user_namespace create), or run as root"
	case stage == StageRules && (e == unix.ENOENT || e == unix.EOPNOTSUPP || e == unix.EPROTONOSUPPORT || e == unix.EAFNOSUPPORT):
		return "the kernel lacks a part of nftables: load it with 'sudo modprobe -a nf_tables nft_ct nft_nat nft_redir nft_reject_inet nf_conntrack', or use a kernel that has CONFIG_NF_TABLES_INET, NFT_CT, NFT_REDIR and NFT_REJECT_INET"
	case stage == StageMounts && denied:
		return fmt.Sprintf("mounting is forbidden here (%v): a container's AppArmor or seccomp profile does that; run it with --security-opt apparmor=unconfined --security-opt seccomp=unconfined", err)
	case denied && f.Root && !f.UserNamespace:
		return fmt.Sprintf("cannot %s as root (%v): this root lacks capabilities, as in a container; give it CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_SETPCAP, or run as an ordinary user", stage, err)
	case stage == StageSockets && e == unix.EADDRINUSE:
		return fmt.Sprintf("cannot open sockets for the program: %v; a --forward port is given twice, or is one that tulle uses (15001, 15053)", err)
	case e == unix.EMFILE || e == unix.ENFILE:
		return fmt.Sprintf("cannot %s: too many open files; raise the limit with 'ulimit -n 4096'", stage)
	}
	return fmt.Sprintf("cannot %s: %v", stage, err)
}

func explainClone(err error, e syscall.Errno, f Facts) string {
	switch {
	case (e == unix.ENOSPC || e == unix.EUSERS) && f.UserNamespace && f.MaxNetNS != "0":
		return fmt.Sprintf("user namespaces are switched off or used up (user.max_user_namespaces is %s): raise it with 'sudo sysctl user.max_user_namespaces=65536', or run as root", known(f.MaxUserNS))
	case e == unix.ENOSPC:
		return fmt.Sprintf("network namespaces are switched off or used up (user.max_net_namespaces is %s): raise it with 'sudo sysctl user.max_net_namespaces=65536'", known(f.MaxNetNS))
	case e == unix.EPERM && f.UserNamespace && f.UserNSClone == "0":
		return "this kernel forbids user namespaces to ordinary users: allow them with 'sudo sysctl kernel.unprivileged_userns_clone=1', or run as root"
	case (e == unix.EPERM || e == unix.EACCES) && f.UserNamespace && f.AppArmor == "1":
		return "Ubuntu's AppArmor forbids user namespaces to programs without a profile: allow them with 'sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0', or run as root"
	case (e == unix.EPERM || e == unix.EACCES || e == unix.ENOSYS) && f.Seccomp:
		return "a seccomp filter forbids namespaces, as in a container: start the container with --security-opt seccomp=unconfined, or run outside it"
	case e == unix.EPERM && f.UserNamespace:
		return "user namespaces are forbidden to this process (a chroot, or a security module): run outside the chroot, or as root"
	case e == unix.EPERM:
		return "this root may not make namespaces: it lacks CAP_SYS_ADMIN, as in a container; give it CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_SETPCAP, or run as an ordinary user"
	case e == unix.EINVAL || e == unix.ENOSYS:
		return "this kernel has no namespaces for it: use one with CONFIG_USER_NS and CONFIG_NET_NS, 5.4 or later"
	case e == unix.EAGAIN:
		return "no more processes are allowed: raise the limit with 'ulimit -u'"
	}
	return fmt.Sprintf("cannot %s: %v", StageClone, err)
}

func known(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// ExecCode answers the exit code that shells use for a program that cannot be executed.
func ExecCode(err error) int {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return 127
	}
	return 126
}

// ExplainExec is the line for it.
func ExplainExec(path string, err error) string {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return path + ": not an executable format; a script needs a first line such as #!/bin/sh"
	case errors.Is(err, os.ErrPermission):
		return path + ": permission denied; make it executable with 'chmod +x', and see that its folder is not the control plane's data folder"
	case errors.Is(err, os.ErrNotExist):
		return path + ": not found, or the interpreter that its first line names is not there"
	}
	return fmt.Sprintf("%s: cannot be executed: %v", path, cause(err))
}
