package service

import (
	"context"
	"errors"
	"time"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// quotaOf is nil where there are no quotas, so that nothing is counted.
func quotaOf(c *config.Config) func(repo string) (storage.Quota, bool) {
	if len(c.Quota) == 0 {
		return nil
	}
	return c.QuotaOf
}

// Usage lists the namespaces with a quota, and what they have.
func (s *Service) Usage(ctx context.Context) ([]storage.Usage, error) { return s.store.Usage(ctx) }

// countUsage counts what namespaces have when the rules are new. Where another
// registry does it, or collects, it looks again until that is done.
func (s *Service) countUsage(ctx context.Context) {
	const pause = 10 * time.Second
	for {
		done, err := s.store.CountUsage(ctx)
		switch {
		case done:
			s.log.Info("usage counted")
			return
		case err == nil:
			return
		case ctx.Err() != nil:
			return
		case !errors.Is(err, storage.ErrBusy):
			s.log.Error("count usage", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
