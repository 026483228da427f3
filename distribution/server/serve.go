package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// ServeOptions configure Serve. What is left zero has a default.
type ServeOptions struct {
	// Handler answers instead of the registry: a mux that the registry is part
	// of, say.
	Handler http.Handler
	// TLS, if not nil, is what connections are encrypted with.
	TLS *tls.Config
	// HeaderTimeout is how long a request's header, and a TLS handshake, may
	// take. Default 10 s.
	HeaderTimeout time.Duration
	// KeepAlive is how long a connection without a request is kept. Default 2 min.
	KeepAlive time.Duration
	// DrainTimeout is how long requests under way may go on after ctx has
	// ended. Default 10 s.
	DrainTimeout time.Duration
	// MaxHeaderBytes bounds a request's header. Default 64 KiB.
	MaxHeaderBytes int
	// Tasks run beside the service, until it ends.
	Tasks []func(context.Context)
}

func (o *ServeOptions) setDefaults(registry *Registry) {
	if o.Handler == nil {
		o.Handler = registry
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&o.HeaderTimeout, 10 * time.Second}, // a half-sent header is not waited for longer
		{&o.KeepAlive, 2 * time.Minute},
		{&o.DrainTimeout, 10 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	if o.MaxHeaderBytes == 0 {
		o.MaxHeaderBytes = 64 << 10
	}
}

// Serve answers on listener until ctx ends, then lets the requests under way
// finish, for some seconds. It closes the listener. The error is nil when ctx
// was the reason.
func Serve(ctx context.Context, listener net.Listener, registry *Registry, o ServeOptions) error {
	o.setDefaults(registry)
	srv := &http.Server{
		Handler:           o.Handler,
		TLSConfig:         o.TLS,
		ReadHeaderTimeout: o.HeaderTimeout,
		IdleTimeout:       o.KeepAlive,
		MaxHeaderBytes:    o.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(registry.opts.Log.Handler(), slog.LevelWarn),
	}
	defer runTasks(ctx, append([]func(context.Context){registry.sweep}, o.Tasks...))()
	failed := make(chan error, 1)
	go func() {
		if o.TLS != nil {
			failed <- srv.ServeTLS(listener, "", "")
			return
		}
		failed <- srv.Serve(listener)
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.DrainTimeout)
	defer cancel()
	err := srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.Join(errors.New("requests did not finish in time"), srv.Close())
	}
	return err
}

// runTasks starts the tasks; stop ends them and waits until they have.
func runTasks(ctx context.Context, tasks []func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, task := range tasks {
		running.Go(func() { task(ctx) })
	}
	return func() { cancel(); running.Wait() }
}

const sweepInterval = 10 * time.Minute

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
