package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// A lock is an object that its holder writes again and again. One that nobody
// has written for the time of a lease has lost its holder and may be taken. The
// times compared are both the service's own.
const (
	lease   = 30 * time.Second
	renewal = lease / 4
)

func lockKey(name string) string { return "locks/" + name }

// Lock implements storage.Objects.
func (o *Objects) Lock(ctx context.Context, name string) (release func(), err error) {
	key := lockKey(name)
	if err := check(key); err != nil {
		return nil, err
	}
	holder := []byte(rand.Text())
	etag, err := o.put(ctx, key, holder, map[string]string{"If-None-Match": "*"})
	if errors.Is(err, storage.ErrExist) {
		etag, err = o.takeOver(ctx, key, holder)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.renew(ctx, key, holder, etag)
	}()
	return func() {
		cancel()
		<-ended
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lease/2)
		defer cancel()
		o.remove(ctx, key) // else the lease ends
	}, nil
}

// takeOver gets a lock whose holder is gone, or says that it is busy.
func (o *Objects) takeOver(ctx context.Context, key string, holder []byte) (etag string, err error) {
	busy := fmt.Errorf("%w", storage.ErrBusy)
	header, err := o.send(ctx, call{method: http.MethodHead, key: key}, nil)
	if errors.Is(err, storage.ErrNotExist) {
		return "", busy // just released; the client will come again
	}
	if err != nil {
		return "", err
	}
	written, err1 := http.ParseTime(header.Get("Last-Modified"))
	now, err2 := http.ParseTime(header.Get("Date"))
	if err1 != nil || err2 != nil || now.Sub(written) < lease {
		return "", busy
	}
	etag, err = o.put(ctx, key, holder, map[string]string{"If-Match": header.Get("Etag")})
	if errors.Is(err, storage.ErrExist) || errors.Is(err, storage.ErrNotExist) {
		return "", busy
	}
	return etag, err
}

func (o *Objects) renew(ctx context.Context, key string, holder []byte, etag string) {
	tick := time.NewTicker(renewal)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		fresh, err := o.put(ctx, key, holder, map[string]string{"If-Match": etag})
		if err == nil {
			etag = fresh
		}
	}
}
