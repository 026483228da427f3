package lifecycle

import "errors"

// The errors that callers tell apart. Their texts are those that engines look
// for in a runtime's messages.
var (
	ErrNotExist   = errors.New("container does not exist")
	ErrExist      = errors.New("container with given ID already exists")
	ErrNotRunning = errors.New("container not running")
	ErrNotPaused  = errors.New("container not paused")
)
