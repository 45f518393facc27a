// Package extproc asks endpoint pickers: Envoy's protocol of external processing, envoy.service.ext_proc.v3, as far as the
// endpoint picker protocol of Gateway API's inference extension uses it (proposal 004-endpoint-picker-protocol). One stream is
// one request: its head, its body in pieces, then what the picker says about both, and at last who has answered it. Nothing
// of a response is processed. A Client never blocks who asks, and has a bound of streams; it is safe for concurrent use, and every
// goroutine it makes ends with Close. Start reading at Client.Pick.
package extproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"

	"github.com/tulle-mesh/tulle/internal/underway"
	"github.com/tulle-mesh/tulle/model"
)

// Names of the protocol.
const (
	fieldDestination = "x-gateway-destination-endpoint"
	fieldSubset      = "x-gateway-destination-endpoint-subset"
	fieldServed      = "x-gateway-destination-endpoint-served"
	spacePicked      = "envoy.lb"
	spaceSubset      = "envoy.lb.subset_hint"
)

// Bounds. Together they are less than the streams that a proxy of the mesh takes on one connection (1024).
const (
	maxAsked = 512 // questions without an answer
	maxHeld  = 384 // answered ones whose picker is still to be told who has served; of further ones it is not
	piece    = 64 << 10
	farewell = time.Second // for the picker to take what it is told last
)

// Client asks one picker.
type Client struct {
	conn  func() grpc.ClientConnInterface
	asked *underway.Group
	held  chan struct{}
}

// NewClient makes one; conn answers the connection to ask over, nil while there is none.
func NewClient(conn func() grpc.ClientConnInterface) *Client {
	return &Client{conn: conn, asked: underway.New(maxAsked), held: make(chan struct{}, maxHeld)}
}

// Pick asks q, which must not be changed until then has been called: once, from another goroutine, within q.Timeout. It
// answers false, and then is not called, if there is no connection or too much under way. Who is told an answer with Served set
// has to call that.
func (c *Client) Pick(q *model.PickQuestion, then func(*model.PickAnswer, error)) bool {
	conn := c.conn()
	if conn == nil {
		return false
	}
	return c.asked.Go(func(ctx context.Context, free func()) { c.ask(ctx, free, conn, q, then) })
}

// Close ends what is under way.
func (c *Client) Close() { c.asked.Close() }

// ask is the life of one stream. It counts as asked until there is an answer.
func (c *Client) ask(ctx context.Context, free func(), conn grpc.ClientConnInterface, q *model.PickQuestion, then func(*model.PickAnswer, error)) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(q.Timeout, func() { cancel(errLate) })
	s, a, err := talk(ctx, conn, q)
	if !late.Stop() && err == nil {
		err = errLate
	}
	free()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		then(nil, err)
		return
	}
	select {
	case c.held <- struct{}{}:
	default:
		then(a, nil)
		return
	}
	defer func() { <-c.held }()
	end := make(chan ending, 1)
	a.Served = func(endpoint string, status int) { end <- ending{endpoint, status} }
	then(a, nil)
	select {
	case e := <-end:
		e.tell(s, cancel)
	case <-ctx.Done():
	case <-s.Context().Done(): // the picker does not want to know
	}
}

var errLate = errors.New("the endpoint picker has not answered in time")

// talk says everything about the request and listens until all is said about it.
func talk(ctx context.Context, conn grpc.ClientConnInterface, q *model.PickQuestion) (extprocv3.ExternalProcessor_ProcessClient, *model.PickAnswer, error) {
	s, err := extprocv3.NewExternalProcessorClient(conn).Process(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range questions(q) {
		if err := s.Send(m); err != nil {
			if errors.Is(err, io.EOF) { // the picker has ended the stream: what it said is to be read
				break
			}
			return nil, nil, err
		}
	}
	a := answer{most: len(q.Body) + maxGrown}
	for !a.complete(q) {
		m, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF) && a.headed && !a.rewriting:
			return s, &a.PickAnswer, nil
		case errors.Is(err, io.EOF):
			return nil, nil, errors.New("the endpoint picker has ended the stream without an answer")
		case err != nil:
			return nil, nil, err
		}
		if err := a.take(m); err != nil {
			return nil, nil, err
		}
	}
	return s, &a.PickAnswer, nil
}

// ending is what the picker is told last.
type ending struct {
	endpoint string
	status   int
}

func (e ending) tell(s extprocv3.ExternalProcessor_ProcessClient, cancel context.CancelCauseFunc) {
	if e.status == 0 {
		return // the stream is reset: the request came to nothing
	}
	over := time.AfterFunc(farewell, func() { cancel(nil) })
	defer over.Stop()
	if s.Send(served(e)) != nil || s.CloseSend() != nil {
		return
	}
	for {
		if _, err := s.Recv(); err != nil {
			return
		}
	}
}

// maxGrown is by how many bytes a picker may make a body longer.
const maxGrown = 64 << 10

// errGrown is of a picker that answers with a body out of bounds.
var errGrown = fmt.Errorf("the endpoint picker has made the request's body more than %d bytes longer", maxGrown)
