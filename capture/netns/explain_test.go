package netns_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/netns"
)

func TestExplain(t *testing.T) {
	user := netns.Facts{UserNamespace: true, MaxUserNS: "96365", MaxNetNS: "96365", Proc: true}
	with := func(f netns.Facts, change func(*netns.Facts)) netns.Facts { change(&f); return f }
	root := netns.Facts{Root: true, MaxNetNS: "1", Proc: true}
	for _, c := range []struct {
		name  string
		err   error
		stage netns.Stage
		facts netns.Facts
		want  string // what is forbidden, and ...
		cure  string // ... what to do
	}{
		{"no /proc", unix.ENOENT, netns.StageClone, netns.Facts{UserNamespace: true}, "/proc is not mounted", "mount -t proc"},
		{"user namespaces off", unix.ENOSPC, netns.StageClone, with(user, func(f *netns.Facts) { f.MaxUserNS = "0" }), "user.max_user_namespaces is 0", "sudo sysctl user.max_user_namespaces="},
		{"user namespaces used up", unix.EUSERS, netns.StageClone, user, "used up", "sudo sysctl user.max_user_namespaces="},
		{"net namespaces off", unix.ENOSPC, netns.StageClone, with(user, func(f *netns.Facts) { f.MaxNetNS = "0" }), "user.max_net_namespaces is 0", "sudo sysctl user.max_net_namespaces="},
		{"net namespaces used up, root", unix.ENOSPC, netns.StageClone, root, "user.max_net_namespaces is 1", "sudo sysctl user.max_net_namespaces="},
		{"Debian's switch", unix.EPERM, netns.StageClone, with(user, func(f *netns.Facts) { f.UserNSClone = "0" }), "this kernel forbids", "sudo sysctl kernel.unprivileged_userns_clone=1"},
		{"seccomp", unix.EPERM, netns.StageClone, with(user, func(f *netns.Facts) { f.Seccomp = true }), "seccomp filter", "--security-opt seccomp=unconfined"},
		{"seccomp, ENOSYS", unix.ENOSYS, netns.StageClone, with(user, func(f *netns.Facts) { f.Seccomp = true }), "seccomp filter", "--security-opt"},
		{"chroot", unix.EPERM, netns.StageClone, user, "chroot", "outside"},
		{"poor root", unix.EPERM, netns.StageClone, root, "lacks CAP_SYS_ADMIN", "ordinary user"},
		{"old kernel", unix.EINVAL, netns.StageClone, user, "no namespaces", "CONFIG_USER_NS"},
		{"processes", unix.EAGAIN, netns.StageClone, user, "no more processes", "ulimit -u"},
		{"AppArmor", unix.EPERM, netns.StageLoopback, with(user, func(f *netns.Facts) { f.AppArmor = "1" }), "Ubuntu's AppArmor", "apparmor_restrict_unprivileged_userns=0"},
		{"AppArmor, clone", unix.EACCES, netns.StageClone, with(user, func(f *netns.Facts) { f.AppArmor = "1" }), "Ubuntu's AppArmor", "run as root"},
		{"another module", unix.EPERM, netns.StageLoopback, user, "security module", "run as root"},
		{"no nftables", unix.EPROTONOSUPPORT, netns.StageRules, user, "lacks a part of nftables", "modprobe"},
		{"mounts", unix.EACCES, netns.StageMounts, user, "mounting is forbidden", "apparmor=unconfined"},
		{"root without NET_ADMIN", unix.EPERM, netns.StageRules, root, "as root", "CAP_NET_ADMIN"},
		{"forward twice", unix.EADDRINUSE, netns.StageSockets, user, "--forward", "15001"},
		{"files", unix.EMFILE, netns.StageSockets, user, "too many open files", "ulimit -n"},
		{"unknown", errors.New("odd"), netns.StageDrop, user, "cannot give up capabilities: odd", ""},
		{"unknown clone", unix.ENOMEM, netns.StageClone, user, "cannot make namespaces: cannot allocate memory", ""},
	} {
		got := netns.Explain(fmt.Errorf("wrapped: %w", c.err), c.stage, c.facts)
		if errors.Is(c.err, unix.ENOMEM) || strings.HasPrefix(c.name, "unknown") {
			got = netns.Explain(c.err, c.stage, c.facts)
		}
		if !strings.Contains(got, c.want) || !strings.Contains(got, c.cure) || strings.Contains(got, "\n") {
			t.Errorf("%s: %q, want %q and %q", c.name, got, c.want, c.cure)
		}
	}
}

func TestExplainExec(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{syscall.ENOENT, 127, "not found"}, {syscall.ENOTDIR, 127, "cannot be executed"}, {fs.ErrNotExist, 127, "not found"},
		{syscall.EACCES, 126, "chmod +x"}, {syscall.ENOEXEC, 126, "#!"}, {syscall.EISDIR, 126, "cannot be executed"},
	} {
		if got := netns.ExecCode(c.err); got != c.code {
			t.Errorf("%v: code %d, want %d", c.err, got, c.code)
		}
		if got := netns.ExplainExec("/x", c.err); !strings.HasPrefix(got, "/x: ") || !strings.Contains(got, c.want) {
			t.Errorf("%v: %q", c.err, got)
		}
	}
}
