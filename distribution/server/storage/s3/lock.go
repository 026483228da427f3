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
	l := &lock{o: o, key: key, holder: []byte(rand.Text()), written: time.Now()}
	l.etag, err = o.put(ctx, key, l.holder, map[string]string{"If-None-Match": "*"})
	if errors.Is(err, storage.ErrExist) {
		l.etag, err = o.takeOver(ctx, l)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.keep(ctx)
	}()
	return func() {
		cancel()
		<-ended
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lease/2)
		defer cancel()
		l.release(ctx)
	}, nil
}

// lock is one that this process has, or had.
type lock struct {
	o       *Objects
	key     string
	holder  []byte
	etag    string    // of the object as we wrote it last
	written time.Time // when that began, or before
}

// renew writes the object again, if it is still ours.
func (l *lock) renew(ctx context.Context) error {
	now := time.Now()
	etag, err := l.o.put(ctx, l.key, l.holder, map[string]string{"If-Match": l.etag})
	if err == nil {
		l.etag, l.written = etag, now
	}
	return err
}

func (l *lock) keep(ctx context.Context) {
	tick := time.NewTicker(renewal)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.renew(ctx) // the next one may go better, and release looks
	}
}

// release removes the object, if it is ours for long enough: one whose lease has
// ended may be another holder's by now. What cannot be removed ends with its lease.
func (l *lock) release(ctx context.Context) {
	if time.Since(l.written) > lease/3 && l.renew(ctx) != nil {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, l.written.Add(lease-5*time.Second))
	defer cancel()
	l.o.remove(ctx, l.key)
}

// takeOver gets a lock whose holder is gone, or says that it is busy.
func (o *Objects) takeOver(ctx context.Context, l *lock) (etag string, err error) {
	busy := fmt.Errorf("%w", storage.ErrBusy)
	header, err := o.send(ctx, call{method: http.MethodHead, key: l.key}, nil)
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
	l.written = time.Now()
	etag, err = o.put(ctx, l.key, l.holder, map[string]string{"If-Match": header.Get("Etag")})
	if errors.Is(err, storage.ErrExist) || errors.Is(err, storage.ErrNotExist) {
		return "", busy
	}
	return etag, err
}
