package service

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// Collect removes what nothing refers to and what no rule keeps, as the
// configuration says. removed is told of tags and manifests, and may be nil.
func (s *Service) Collect(ctx context.Context, dryRun bool, removed func(storage.Removal)) (storage.CollectReport, error) {
	return s.store.Collect(ctx, storage.CollectOptions{
		Grace: time.Duration(s.config.GC.Grace), Untagged: s.config.GC.Untagged, Retention: s.config.RetentionOf,
		DryRun: dryRun, Removed: removed,
	})
}

func (s *Service) logRemoval(what storage.Removal) {
	attrs := []any{"repository", what.Repository, "digest", what.Digest, "pushed", what.Pushed}
	if what.Tag == "" {
		s.log.Info("manifest removed", attrs...)
		return
	}
	s.log.Info("tag removed", append(attrs, "tag", what.Tag)...)
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
		report, err := s.Collect(ctx, false, s.logRemoval)
		switch {
		case errors.Is(err, storage.ErrBusy): // another registry does it
		case err != nil && ctx.Err() == nil:
			s.log.Error("collect", "err", err)
		case err == nil:
			s.log.Info("collected", "repositories", report.Repositories, "blobs", report.Blobs, "tags-removed", report.Tags, "manifests-removed", report.Manifests,
				"links-removed", report.Links, "blobs-removed", report.BlobsRemoved, "bytes-removed", report.RemovedBytes, "seconds", time.Since(start).Seconds())
		}
	}
}
