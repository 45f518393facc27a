package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/capture/bootstrap"
	"github.com/tulle-mesh/tulle/capture/netns"
	"github.com/tulle-mesh/tulle/capture/supervise"
	"github.com/tulle-mesh/tulle/control/httpapi"
)

// socketPatience is how long tulle run waits for a control plane that is just being started.
const socketPatience = 5 * time.Second

// newRunCommand makes tulle run. Its error is the exitCode of the program, unless that is 0.
func newRunCommand() *cobra.Command {
	f := new(runFlags)
	cmd := &cobra.Command{
		Use:   "run --service NAME [flags] -- COMMAND [ARGUMENT]...",
		Short: "Run a program as a workload of the mesh",
		Long: `Run an unmodified program in a network namespace of its own, beside a proxy through which everything
it sends and receives goes. Needs no root. Without --port the program is a pure client:

  tulle run --service shell -- curl http://reviews:9080/

The exit code is the program's; 127 if it is not there, 126 if it cannot be executed.`,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := f.run(args)
			if err != nil && code <= 1 {
				return err
			}
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "tulle run:", err)
			}
			if code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false) // the program's own flags are the program's
	fl.StringVar(&f.service, "service", "", "service that the program is an instance of (required)")
	fl.StringVar(&f.namespace, "namespace", "default", "namespace of the service")
	fl.StringVar(&f.version, "version", "", "version of the program: weighted routes tell versions apart")
	fl.StringVar(&f.account, "service-account", "", "service account that the workload's identity names (default: the service)")
	fl.StringArrayVar(&f.labels, "label", nil, "label `KEY=VALUE` of the workload; repeatable")
	fl.StringArrayVar(&f.ports, "port", nil, "port `[NAME=]PORT[:TARGET][/http|grpc|tcp|tls]`: what callers dial, and where the program listens; repeatable")
	fl.StringArrayVar(&f.publish, "publish", nil, "open a port of the workload on the machine: `[HOST:]PORT[=SERVICEPORT]` (default host 127.0.0.1); repeatable")
	fl.StringArrayVar(&f.forward, "forward", nil, "make a port of the machine reachable on the program's loopback: `PORT[=HOST:PORT]`; repeatable")
	fl.StringVar(&f.metrics, "metrics", "", "where the proxy serves /metrics and /ready on the machine: `[HOST:]PORT` (default: a free port of 127.0.0.1, see 'tulle status -o json')")
	fl.StringVar(&f.ready, "ready", "", "when the workload is announced: tcp (its first port accepts, the default) or `http:/path` (answers 200 to 399)")
	fl.StringArrayVar(&f.waitFor, "wait-for", nil, "start the program only when `SERVICE` has a live endpoint; repeatable")
	fl.BoolVar(&f.workloadAPI, "workload-api", false, "serve the SPIFFE Workload API to the program: its X.509-SVID, with a key of its own, and bundles, at $SPIFFE_ENDPOINT_SOCKET")
	fl.StringArrayVar(&f.resolvers, "resolver", nil, "ask the name server at `ADDRESS[:PORT]` about names outside of the mesh, instead of this machine's; repeatable")
	fl.StringArrayVar(&f.exclude, "exclude", nil, "relay traffic to `CIDR|PORT` untouched: no protocol detection, no routes; repeatable")
	fl.StringVar(&f.dataDir, "data-dir", defaultDataDir(), "data folder of the control plane on this machine")
	fl.StringVar(&f.control, "control", "", "control plane on another machine: `HOST[:PORT]`; needs --token")
	fl.StringVar(&f.token, "token", "", "join token from 'tulle token', or @FILE that has it")
	fl.StringVar(&f.address, "address", "", "`IP` of this machine that other proxies connect to (default: with a control plane on this machine where that listens, else the address of the way to it)")
	fl.BoolVar(&f.accessLog, "access-log", false, "log every request as a line of JSON on standard error")
	fl.BoolVar(&f.failClosed, "fail-closed", false, "cut the program's network off, and take no requests, while the test fails that its traffic goes through its proxy (default: an alarm)")
	fl.IntVar(&f.workers, "workers", 0, "event loops of the proxy (default: 2, or 1 with one CPU)")
	return cmd
}

// run does what the flags say and answers the exit code.
func (f *runFlags) run(args []string) (code int, err error) {
	inherited := supervise.Inherited()
	if len(args) == 0 {
		return 1, errors.New("no command: write it after '--', for example: tulle run --service shell -- curl http://reviews:9080/")
	}
	if f.dataDir, err = filepath.Abs(f.dataDir); err != nil {
		return 1, err
	}
	if name, ok := strings.CutPrefix(f.token, "@"); ok {
		b, err := os.ReadFile(name)
		if err != nil {
			return 1, fmt.Errorf("--token: %w", err)
		}
		f.token = strings.TrimSpace(string(b))
	}
	b, err := f.bootstrap(strings.ToLower(rand.Text()[:5]))
	if err != nil {
		return 1, err
	}
	path, code, err := lookUp(args[0])
	if err != nil {
		return code, err
	}
	var info httpapi.Info
	if b.Control.Socket != "" {
		if info, err = askControl(f.dataDir); err != nil {
			return 1, err
		}
		b.Control.Ports = listensOn(&info)
	}
	host, err := place(&b, info.GRPC)
	if err != nil {
		return 1, err
	}
	hide := []string{f.dataDir, defaultDataDir()}
	if d := hides(hide, path); d != "" {
		return 126, fmt.Errorf("%s lies in %s, which is hidden from the program: move it elsewhere", path, d)
	}
	// Even where nothing is hidden yet: a control plane that starts here later is to be hidden as well.
	for _, d := range hide {
		os.MkdirAll(d, 0o700)
	}
	b.Admin = bootstrap.AdminSocket(f.dataDir, b.Namespace, b.Workload)
	if b.ResolvConf == "" {
		resolv, _ := os.ReadFile("/etc/resolv.conf")
		b.ResolvConf = string(resolv)
	}
	return supervise.Run(supervise.Config{
		Path: path, Args: args, Bootstrap: b, MeshHost: host, Hide: hide, Endpoint: f.endpoint(hide), Inherited: inherited,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)).With("workload", b.Workload),
	})
}

// lookUp finds the program before anything is started for it.
func lookUp(name string) (path string, code int, err error) {
	path, err = exec.LookPath(name)
	if errors.Is(err, exec.ErrDot) {
		err = nil // the user's PATH says so
	}
	if err == nil {
		path, err = filepath.Abs(path)
		return path, 0, err
	}
	var e *exec.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", 127, fmt.Errorf("%s: not found on PATH", name)
	}
	return "", netns.ExecCode(err), errors.New(netns.ExplainExec(name, err))
}
