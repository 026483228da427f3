package service

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// Collect removes what nothing refers to, as the configuration says.
func (s *Service) Collect(ctx context.Context, dryRun bool) (storage.CollectReport, error) {
	return s.store.Collect(ctx, storage.CollectOptions{
		Grace: time.Duration(s.config.GC.Grace), Untagged: s.config.GC.Untagged, DryRun: dryRun,
	})
}

// collectNowAndThen begins somewhere in the interval, so that registries that
// were started together do not all come at once.
func (s *Service) collectNowAndThen(ctx context.Context) {
	interval := time.Duration(s.config.GC.Interval)
	for wait := rand.N(interval); ; wait = interval {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		start := time.Now()
		report, err := s.Collect(ctx, false)
		switch {
		case errors.Is(err, storage.ErrBusy): // another registry does it
		case err != nil && ctx.Err() == nil:
			s.log.Error("collect", "err", err)
		case err == nil:
			s.log.Info("collected", "repositories", report.Repositories, "blobs", report.Blobs, "manifests-removed", report.Manifests,
				"links-removed", report.Links, "blobs-removed", report.BlobsRemoved, "bytes-removed", report.RemovedBytes, "seconds", time.Since(start).Seconds())
		}
	}
}
