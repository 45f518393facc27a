package loop

import "errors"

// Errors given to Handler.Closed. Others come from the kernel as syscall.Errno.
var (
	ErrConnectTimeout = errors.New("connect timeout")
	ErrLoopEnded      = errors.New("event loop ended")
	ErrNotConsumed    = errors.New("a full read buffer and nothing of it consumed")
)
