package fs

import (
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"time"
)

// Tidy implements storage.Objects.
func (o *Objects) Tidy(ctx context.Context, before time.Time) error {
	for _, dir := range []string{newDir, streamDir} {
		entries, err := os.ReadDir(filepath.Join(o.root, dir))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			info, err := e.Info()
			if err == nil && info.Mode().IsRegular() && info.ModTime().Before(before) {
				err = os.Remove(filepath.Join(o.root, dir, e.Name()))
			}
			if err != nil && !errors.Is(err, iofs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
