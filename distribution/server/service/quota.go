package service

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tare-oci/tare/distribution/server/config"
	"github.com/tare-oci/tare/distribution/server/metrics"
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

// usageFigures shows the quotas among the figures. As whoever may see those may ask
// for them all the time, the storage is asked now and then.
type usageFigures struct {
	usage func(context.Context) ([]storage.Usage, error)
	log   *slog.Logger

	mu    sync.Mutex
	asked time.Time
	all   []storage.Usage
}

const (
	usageLife  = 15 * time.Second
	usageLimit = 5 * time.Second
)

// addUsage adds the figures, if there are quotas.
func (s *Service) addUsage() {
	if len(s.config.Quota) == 0 {
		return
	}
	u := &usageFigures{usage: s.store.Usage, log: s.log}
	s.metrics.Gauges("tare_registry_quota_used_bytes", "What a namespace with a quota has.", "namespace", func() []metrics.Sample {
		return u.samples(func(one storage.Usage) int64 { return one.UsedBytes })
	})
	s.metrics.Gauges("tare_registry_quota_limit_bytes", "What such a namespace may have.", "namespace", func() []metrics.Sample {
		return u.samples(func(one storage.Usage) int64 { return one.LimitBytes })
	})
}

// samples is empty where the storage cannot be asked: what was so may not be so
// any more.
func (u *usageFigures) samples(value func(storage.Usage) int64) []metrics.Sample {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.asked) > usageLife {
		ctx, cancel := context.WithTimeout(context.Background(), usageLimit)
		defer cancel()
		var err error
		if u.all, err = u.usage(ctx); err != nil {
			u.all = nil
			u.log.Warn("read usage", "err", err)
		}
		u.asked = time.Now()
	}
	samples := make([]metrics.Sample, len(u.all))
	for i, one := range u.all {
		samples[i] = metrics.Sample{Label: one.Namespace, Value: float64(value(one))}
	}
	return samples
}

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
