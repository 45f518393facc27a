package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

// EndpointVariable is the environment variable that tells the program of Config.Endpoint (SPIFFE Workload Endpoint, section 4).
const EndpointVariable = "SPIFFE_ENDPOINT_SOCKET"

// Shim does the shim's work and never returns, if this process is one; else it returns at once. The binary's main
// calls it before anything else.
func Shim() {
	if len(os.Args) != 3 || os.Args[1] != ShimCommand {
		return
	}
	fd, err := strconv.Atoi(os.Args[2])
	if err != nil || fd < 3 {
		fmt.Fprintln(os.Stderr, "tulle: "+ShimCommand+" is started by 'tulle run' only")
		os.Exit(2)
	}
	runtime.LockOSThread() // capabilities and the parent-death signal belong to a thread, and this one executes the program
	unix.CloseOnExec(fd)
	link, err := bootstrap.NewLink(os.NewFile(uintptr(fd), "link"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "tulle: "+ShimCommand+":", err)
		os.Exit(2)
	}
	link.SendFiles(failed(shim(link)), nil)
	os.Exit(1)
}

// shim sets the namespace up and becomes the program. It returns only with an error.
func shim(link *bootstrap.Link) error {
	var s spec
	if err := link.ReceiveFiles(&s, nil); err != nil {
		return &StageError{StageShim, err}
	}
	var r report
	fds, err := s.prepare(&r)
	if err != nil {
		return err
	}
	if err := link.SendFiles(r, fds); err != nil {
		return &StageError{StageSockets, err}
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	var release struct{ Go bool }
	if err := link.ReceiveFiles(&release, nil); err != nil || !release.Go {
		os.Exit(1) // the supervisor is gone or has changed its mind
	}
	if err := dropRights(s.UserNamespace); err != nil {
		return &StageError{StageDrop, err}
	}
	// Once more: a change of credentials may have cleared it, and this may be another thread than the first.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return &StageError{StageDrop, err}
	}
	if os.Getppid() != s.Parent {
		os.Exit(1)
	}
	err = syscall.Exec(s.Path, s.Args, environment(s.Endpoint))
	return &ExecError{Path: s.Path, Err: err}
}

// prepare does everything that needs rights, in an order in which the first step that a forbidding machine
// refuses is the one that tells why.
func (s *spec) prepare(r *report) ([]int, error) {
	if err := network(); err != nil {
		return nil, err
	}
	sockets, err := openSockets(s.Forward)
	if err != nil {
		return nil, err
	}
	if err := rules(sockets); err != nil {
		return nil, &StageError{StageRules, err}
	}
	r.Warnings = append(r.Warnings, sysctls()...)
	warn, endpoint, err := mounts(s.Hide, s.Endpoint, s.ResolvConf)
	if err != nil {
		return nil, &StageError{StageMounts, err}
	}
	if s.Endpoint != "" {
		sockets = append(sockets, bootstrap.Socket{Role: bootstrap.RoleWorkload, Local: s.Endpoint, FD: endpoint})
	}
	r.Warnings = append(r.Warnings, warn...)
	r.Sockets = sockets
	fds := make([]int, len(sockets))
	for i := range sockets {
		fds[i] = sockets[i].FD
	}
	return fds, nil
}

// environment is the program's: ours, and where its Workload API is, whatever ours says of that.
func environment(endpoint string) []string {
	if endpoint == "" {
		return os.Environ()
	}
	kept := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, EndpointVariable+"=") })
	return append(kept, EndpointVariable+"=unix://"+endpoint)
}

// failed puts an error into the form in which it travels.
func failed(err error) report {
	var exec *ExecError
	if errors.As(err, &exec) {
		e, _ := cause(exec.Err).(syscall.Errno)
		return report{Stage: StageExec, Errno: e, Text: exec.Path}
	}
	r := report{Stage: StageShim, Text: err.Error()}
	var st *StageError
	if errors.As(err, &st) {
		r.Stage, r.Text = st.Stage, st.Err.Error()
	}
	if e, ok := cause(err).(syscall.Errno); ok {
		r.Errno = e
	}
	return r
}
