package client

import (
	"context"

	"github.com/tulle-mesh/tulle/model"
)

// Client is a proxy's connection to the control plane.
type Client struct{ cfg Config }

func newClient(cfg Config) (*Client, error)             { return &Client{cfg: cfg}, nil }
func (c *Client) start(sink Sink)                       {}
func (c *Client) subscribe(kind Kind, name string)      {}
func (c *Client) unsubscribe(kind Kind, name string)    {}
func (c *Client) setReady(ready bool)                   {}
func (c *Client) learned(port uint16, p model.Protocol) {}
func (c *Client) report(stats []byte)                   {}
func (c *Client) withdraw(ctx context.Context) error    { return nil }
func (c *Client) state() State                          { return State{} }
func (c *Client) close()                                {}
