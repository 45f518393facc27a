// Command websocket is a WebSocket server and a client that asks it, both of coder/websocket: "websocket serve ADDRESS"
// echoes every message; "websocket ask URL" sends messages of many sizes in both kinds, pings, closes with a status of
// its own and expects the same one back. It exits with 0 if all was as expected.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"
)

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: websocket serve ADDRESS | websocket ask URL"))
	}
	switch os.Args[1] {
	case "serve":
		fail(http.ListenAndServe(os.Args[2], http.HandlerFunc(echo)))
	case "ask":
		if err := ask(os.Args[2]); err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

const limit = 4 << 20

func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo.v1"}, CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	c.SetReadLimit(limit)
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, data); err != nil {
			return
		}
	}
}

func ask(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{"echo.v1"}, CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		return err
	}
	defer c.CloseNow()
	if c.Subprotocol() != "echo.v1" {
		return fmt.Errorf("subprotocol %q; %v", c.Subprotocol(), resp.Header)
	}
	c.SetReadLimit(limit)
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			want := bytes.Repeat([]byte("tulle "), size/6+1)[:size]
			if err := c.Write(ctx, kind, want); err != nil {
				return fmt.Errorf("writing %d bytes: %w", size, err)
			}
			got, data, err := c.Read(ctx)
			if err != nil || got != kind || !bytes.Equal(data, want) {
				return fmt.Errorf("%d bytes of kind %d came back as %d bytes of kind %d, %v", size, kind, len(data), got, err)
			}
		}
	}
	reading := c.CloseRead(ctx) // pongs are read there
	if err := c.Ping(ctx); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	if err := c.Close(4321, "enough"); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	<-reading.Done()
	return nil
}
