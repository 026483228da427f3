package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
)

const (
	maxUpdateTries = 50
	updatePause    = 20 * time.Millisecond
)

// Update implements storage.Objects: it writes only over what it has read, and
// reads again where another was quicker.
func (o *Objects) Update(ctx context.Context, key string, limit int64, change func(old []byte) ([]byte, error)) error {
	for range maxUpdateTries {
		condition := map[string]string{"If-None-Match": "*"}
		old, header, err := o.get(ctx, key, limit)
		switch {
		case err == nil:
			condition = map[string]string{"If-Match": header.Get("Etag")}
		case !errors.Is(err, storage.ErrNotExist):
			return err
		}
		data, err := change(old)
		if err != nil {
			return err
		}
		_, replaced := condition["If-Match"]
		if _, err := o.put(ctx, key, data, condition); err == nil {
			return nil
		} else if !errors.Is(err, storage.ErrExist) && !(replaced && errors.Is(err, storage.ErrNotExist)) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(updatePause)):
		}
	}
	return fmt.Errorf("update %s: %w", key, storage.ErrBusy)
}
