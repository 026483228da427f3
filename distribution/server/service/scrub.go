package service

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tare-oci/tare/distribution/server/metrics"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// rot tells of rotten blobs, and counts what the scrubber reads.
type rot struct {
	log                              *slog.Logger
	rotten, unreadable, blobs, bytes *metrics.Counter
}

func newRot(set *metrics.Set, log *slog.Logger) *rot {
	r := &rot{
		log:        log,
		rotten:     set.Counter("tare_registry_rotten_blobs_total", "Blobs whose bytes were not those of their digest, and were quarantined."),
		unreadable: set.Counter("tare_registry_unreadable_blobs_total", "Blobs that the scrubber could not read."),
		blobs:      set.Counter("tare_registry_scrubbed_blobs_total", "Blobs that the scrubber has read and found right."),
		bytes:      set.Counter("tare_registry_scrubbed_bytes_total", "Bytes of those blobs."),
	}
	for _, c := range []*metrics.Counter{r.rotten, r.unreadable, r.blobs, r.bytes} {
		c.Add(0) // so that an alarm has something to look at from the beginning
	}
	return r
}

func (r *rot) found(blob storage.Rot) {
	r.rotten.Add(1)
	r.log.Error("blob is rotten", "digest", blob.Digest, "found", blob.Found, "bytes", blob.SizeBytes, "quarantine", blob.Key)
}

func (r *rot) failed(err error) {
	r.unreadable.Add(1)
	r.log.Error("blob cannot be read", "err", err)
}

func (r *rot) read(sizeBytes int64) {
	r.blobs.Add(1)
	r.bytes.Add(uint64(sizeBytes))
}

// Scrub reads all blobs at a rate in bytes per second, 0 being as fast as it goes.
func (s *Service) Scrub(ctx context.Context, bytesPerSecond int64, interval time.Duration) (storage.ScrubReport, error) {
	return s.store.Scrub(ctx, storage.ScrubOptions{BytesPerSecond: bytesPerSecond, Interval: interval, Read: s.rot.read, Failed: s.rot.failed})
}

// scrubNowAndThen looks now and then whether it is time for a walk through all
// blobs, or for the rest of one that another registry has not finished.
func (s *Service) scrubNowAndThen(ctx context.Context) {
	const look = time.Minute
	interval := time.Duration(s.config.Scrub.Interval)
	for {
		before, err := s.store.ScrubState(ctx)
		var report storage.ScrubReport
		if err == nil {
			report, err = s.Scrub(ctx, int64(s.config.Scrub.Rate), interval)
		}
		switch {
		case errors.Is(err, storage.ErrBusy): // another registry does it
		case err != nil && ctx.Err() == nil:
			s.log.Error("scrub", "err", err)
		case err == nil && report.Finished != before.Finished:
			s.log.Info("scrubbed", "blobs", report.Blobs, "bytes", report.Bytes, "rotten", report.Rotten, "unreadable", report.Unreadable,
				"seconds", report.Finished.Sub(report.Started).Seconds())
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(look):
		}
	}
}
