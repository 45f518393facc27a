package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tulle-mesh/tulle/control"
	"github.com/tulle-mesh/tulle/control/httpapi"
	"github.com/tulle-mesh/tulle/telemetry"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 256 << 20

// client talks to the control plane of one data folder.
type client struct {
	http   *http.Client
	socket string
}

func newClient(dir string) *client {
	socket := control.APISocket(dir)
	return &client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}}
}

// clientOf answers the client for a command's --data-dir.
func clientOf(cmd *cobra.Command) (*client, error) {
	dir, err := dataDir(cmd)
	return newClient(dir), err
}

// call sends in (nil: nothing) and reads the answer into out. An answer that is not 200 is an *httpapi.Error.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://tulle"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the control plane at %s broke off: %w", c.socket, err)
	}
	if resp.StatusCode != http.StatusOK {
		e := &httpapi.Error{Status: resp.StatusCode}
		if json.Unmarshal(text, e) != nil || e.Message == "" {
			e.Message = "the control plane answered " + resp.Status
		}
		return e
	}
	return json.Unmarshal(text, out)
}

// errNobody is in the error of call when nobody listens: there is no control plane, or not yet.
var errNobody = errors.New("no control plane answers")

// explain says why nobody answers, and what to do.
func (c *client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w at %s: start one with 'tulle up', or name another with --data-dir", errNobody, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the control plane at %s is another user's: ask as that user, or name another with --data-dir", c.socket)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("the path %s is too long for a unix socket: choose a shorter --data-dir", c.socket)
	}
	return fmt.Errorf("control plane at %s: %w", c.socket, err)
}

// totalEdges answers everything that all proxies have counted since they began.
func totalEdges(ctx context.Context, dir string) ([]telemetry.Edge, error) {
	var s httpapi.Stat
	err := newClient(dir).call(ctx, http.MethodGet, "/v1/stat?window=total", nil, &s)
	return s.Edges, err
}

// readFile reads a file to apply; "-" is standard input.
func readFile(cmd *cobra.Command, name string) (httpapi.File, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(cmd.InOrStdin())
		name = "stdin"
	} else {
		text, err = os.ReadFile(name)
	}
	return httpapi.File{Name: name, Text: string(text)}, err
}
