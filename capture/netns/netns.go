// Package netns gives a program its own network namespace in which every outgoing TCP connection and every DNS
// query is turned to the proxy, and hands out the sockets that a proxy needs there. It works as root and without
// (then in a user namespace that maps one uid and one gid to themselves). No helper stays inside: a shim, this
// same binary started with ShimCommand, sets the namespace up, sends the sockets out, waits for Release, gives up
// its capabilities and becomes the program. The package runs no external command and reads no environment
// variable. A Namespace may be used from any goroutine, except where a method says otherwise. Start reading at
// Start, then Shim.
package netns

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
)

// ShimCommand is the first argument by which a binary knows that it is the shim; see Shim.
const ShimCommand = "netns-shim"

// Config says what to start and what the program may see.
type Config struct {
	Path          string   // of the executable, absolute or relative to the working folder
	Args          []string // the program's arguments, the first is its own name
	UserNamespace bool     // make a user namespace too; see NeedUserNamespace
	Forward       []uint16 // ports on the program's loopback to listen on, for RoleForward
	Hide          []string // folders that the program finds empty
	Endpoint      string   // unix socket that only the program sees, directly in a folder of Hide, for RoleWorkload; "": none
	ResolvConf    string   // content of the program's /etc/resolv.conf; "" leaves the machine's
	Executable    string   // the binary that is the shim; "" is /proc/self/exe
	Files         []*os.File
}

// spec is what the shim is told; report what it answers.
type spec struct {
	Path          string
	Args          []string
	UserNamespace bool
	Forward       []uint16
	Hide          []string
	Endpoint      string
	ResolvConf    string
	Parent        int
}

type report struct {
	Sockets  []bootstrap.Socket `json:",omitempty"`
	Warnings []string           `json:",omitempty"`
	Stage    Stage              `json:",omitempty"`
	Errno    syscall.Errno      `json:",omitempty"`
	Text     string             `json:",omitempty"`
}

// Namespace is one program in its namespace.
type Namespace struct {
	Process *os.Process
	link    *bootstrap.Link

	mu      sync.Mutex
	sockets []bootstrap.Socket
}

// StageError is a step that failed; Explain turns it into a line for the user.
type StageError struct {
	Stage Stage
	Err   error
}

func (e *StageError) Error() string { return string(e.Stage) + ": " + e.Err.Error() }
func (e *StageError) Unwrap() error { return e.Err }

// ExecError is a program that could not be started in its namespace, with the exit code that shells use for it.
type ExecError struct {
	Path string
	Err  error
}

func (e *ExecError) Error() string { return ExplainExec(e.Path, e.Err) }
func (e *ExecError) Unwrap() error { return e.Err }

// Code answers 127 for a program that is not there, 126 for one that cannot be executed.
func (e *ExecError) Code() int { return ExecCode(e.Err) }

// NeedUserNamespace reports whether this process lacks what it takes to make a network namespace directly.
func NeedUserNamespace() bool {
	if os.Geteuid() != 0 {
		return true
	}
	have, err := capabilities()
	need := uint64(1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SETPCAP)
	return err == nil && have&need != need
}

// Start makes the namespace and starts the shim in it. The program is sent SIGTERM when the calling *thread* ends,
// so the caller is a goroutine that is locked to its thread and lives for as long as the program. The caller then
// calls Sockets, Release and Wait in this order. Descriptors of this process that are not close-on-exec are
// inherited by the program.
func Start(c Config) (*Namespace, error) {
	parent, child, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer child.Close()
	exe, files := c.Executable, c.Files
	if exe == "" {
		exe = "/proc/self/exe"
	}
	if files == nil {
		files = []*os.File{os.Stdin, os.Stdout, os.Stderr}
	}
	sys := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	if c.UserNamespace {
		sys.Cloneflags |= syscall.CLONE_NEWUSER
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		sys.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP, unix.CAP_SYS_ADMIN}
	}
	// The link keeps its number in the child, so that no descriptor the user gave the program is overwritten.
	if err := inheritable(child, true); err != nil {
		parent.Close()
		return nil, err
	}
	p, err := os.StartProcess(exe, []string{"tulle", ShimCommand, strconv.Itoa(int(child.Fd()))}, &os.ProcAttr{Files: files, Sys: sys})
	inheritable(child, false)
	if err != nil {
		parent.Close()
		return nil, &StageError{StageClone, cause(err)}
	}
	n := &Namespace{Process: p, link: parent}
	err = parent.SendFiles(spec{c.Path, c.Args, c.UserNamespace, c.Forward, c.Hide, c.Endpoint, c.ResolvConf, os.Getpid()}, nil)
	if err != nil {
		n.Abandon()
		return nil, &StageError{StageClone, err}
	}
	return n, nil
}

// Sockets waits until the namespace is set up and answers its sockets, which belong to n, and warnings for the
// user. It is called once.
func (n *Namespace) Sockets() ([]bootstrap.Socket, []string, error) {
	var r report
	var fds []int
	err := n.link.ReceiveFiles(&r, func(got []int) error { fds = got; return nil })
	switch {
	case err != nil:
		return nil, nil, &StageError{StageShim, fmt.Errorf("the shim ended: %w", err)}
	case r.Stage != "":
		return nil, nil, r.err()
	case len(fds) != len(r.Sockets):
		return nil, nil, &StageError{StageSockets, fmt.Errorf("%d sockets announced, %d received", len(r.Sockets), len(fds))}
	}
	for i, fd := range fds {
		r.Sockets[i].FD = fd
	}
	n.mu.Lock()
	n.sockets = r.Sockets
	n.mu.Unlock()
	return r.Sockets, r.Warnings, nil
}

// Release lets the shim become the program. It answers when the program has been executed, or *ExecError,
// or *StageError if the shim could not give up its rights.
func (n *Namespace) Release() error {
	if err := n.link.SendFiles(struct{ Go bool }{true}, nil); err != nil {
		return &StageError{StageExec, err}
	}
	var r report
	err := n.link.ReceiveFiles(&r, nil)
	n.link.Close()
	switch {
	case errors.Is(err, io.EOF):
		return nil // closed by a successful exec
	case err != nil:
		return &StageError{StageExec, err}
	case r.Stage == StageExec:
		return &ExecError{Path: r.Text, Err: r.Errno}
	}
	return r.err()
}

// Wait waits for the program to end.
func (n *Namespace) Wait() (*os.ProcessState, error) { return n.Process.Wait() }

// Abandon ends a shim that has not been released, and reaps it.
func (n *Namespace) Abandon() {
	n.link.Close()
	n.Process.Kill()
	n.Process.Wait()
	n.Close()
}

// Close closes the namespace's sockets.
func (n *Namespace) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sockets {
		unix.Close(s.FD)
	}
	n.sockets = nil
	n.link.Close()
}

// remote is an error from the shim: its text there, and the errno that Explain looks for.
type remote struct {
	text  string
	errno syscall.Errno
}

func (e *remote) Error() string { return e.text }

func (e *remote) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

func (r *report) err() error {
	return &StageError{r.Stage, &remote{r.Text, r.Errno}}
}

// cause strips the paths that package os wraps around an errno.
func cause(err error) error {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

func socketpair() (*bootstrap.Link, *os.File, error) {
	l, f, err := bootstrap.Pair()
	if err != nil {
		return nil, nil, &StageError{StageClone, cause(err)}
	}
	return l, f, nil
}

func inheritable(f *os.File, yes bool) error {
	flag := unix.FD_CLOEXEC
	if yes {
		flag = 0
	}
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, flag)
	return err
}

// ResolvConf is what a program in the given namespace of the mesh finds as /etc/resolv.conf. The machine's own search
// domains are not in it: a wildcard zone among them would answer "reviews". With ndots:1 a name with a dot is asked
// as it is first, so that names outside the mesh never wait for it.
func ResolvConf(namespace string) string {
	return "# made by tulle run: the mesh answers, and asks the machine's resolver for names outside it\n" +
		"search " + namespace + ".svc.cluster.local svc.cluster.local cluster.local\n" +
		"nameserver 127.0.0.1\noptions ndots:1 timeout:5 attempts:2\n"
}
