package fs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// updatePause is about as long as an update takes.
const updatePause = time.Millisecond

// Update implements storage.Objects, under a lock that all processes see.
func (o *Objects) Update(ctx context.Context, key string, limit int64, change func(old []byte) ([]byte, error)) error {
	if _, err := o.path(key); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(key))
	name := "update-" + hex.EncodeToString(sum[:12])
	release, err := o.Lock(ctx, name)
	for errors.Is(err, storage.ErrBusy) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(2 * updatePause)):
		}
		release, err = o.Lock(ctx, name)
	}
	if err != nil {
		return err
	}
	defer release()
	old, err := o.Get(ctx, key, limit)
	if err != nil && !errors.Is(err, storage.ErrNotExist) {
		return err
	}
	data, err := change(old)
	if err != nil {
		return err
	}
	return o.PutScratch(ctx, key, data)
}
