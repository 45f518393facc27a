package exchange

import (
	"github.com/tulle-mesh/tulle/proxy/failure"
	"github.com/tulle-mesh/tulle/proxy/message"
)

// Exchange is described in the package comment.
type Exchange struct {
	w *Worker
}

// NewWorker makes the worker of one loop.
func NewWorker(cfg Config) *Worker { return &Worker{cfg: cfg} }

// Begin starts an exchange for the request h (copied) of client; end says that no body follows. It may call
// client back before it returns, even with Finished; the answer is nil then.
func (w *Worker) Begin(o *Origin, client Client, h *message.Head, end bool) *Exchange { return nil }

// Data gives body bytes of the request. All are taken; Client.Consumed says when they have been passed on.
func (x *Exchange) Data(p []byte, end bool) {}

// Trailers ends the request.
func (x *Exchange) Trailers(h *message.Head) {}

// Writable: Client.Data takes more.
func (x *Exchange) Writable() {}

// Gone: the downstream's stream is broken; nothing of the client is called any more but Finished, inside.
func (x *Exchange) Gone(cause error) {}

// Refuse answers a request that never became an exchange (it could not be parsed) and records it.
func (w *Worker) Refuse(o *Origin, client Client, reason failure.Reason, cause error) {}
