package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	headerTimeout  = 10 * time.Second // a half-sent header is not waited for longer
	keepAlive      = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	drainTimeout   = 10 * time.Second
	sweepInterval  = time.Hour
)

// Serve answers on listener until ctx ends, then lets the requests under way
// finish, for some seconds. It closes the listener. The error is nil when ctx
// was the reason.
func Serve(ctx context.Context, listener net.Listener, registry *Registry) error {
	srv := &http.Server{
		Handler:           registry,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(registry.opts.Log.Handler(), slog.LevelWarn),
	}
	sweeping, stopSweeping := context.WithCancel(ctx)
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		registry.sweep(sweeping)
	}()
	defer func() { stopSweeping(); <-swept }()

	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.Join(errors.New("requests did not finish in time"), srv.Close())
	}
	return err
}

// sweep drops forgotten uploads now and then.
func (g *Registry) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		g.drop(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
