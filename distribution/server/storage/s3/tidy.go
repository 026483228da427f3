package s3

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// Tidy implements storage.Objects. What is left of a stream goes with it; what
// is not in any list of objects is a multipart upload that nobody completed,
// whose parts the service keeps, and charges for.
func (o *Objects) Tidy(ctx context.Context, before time.Time) error {
	query := url.Values{"uploads": {""}, "prefix": {o.prefix}}
	for {
		var doc struct {
			Upload []struct {
				Key       string
				UploadId  string
				Initiated time.Time
			}
			IsTruncated                       bool
			NextKeyMarker, NextUploadIdMarker string
		}
		if _, err := o.send(ctx, call{method: http.MethodGet, query: query}, &doc); err != nil {
			return err
		}
		for _, u := range doc.Upload {
			key, ours := strings.CutPrefix(u.Key, o.prefix)
			if !ours || check(key) != nil || !u.Initiated.Before(before) {
				continue
			}
			_, err := o.send(ctx, call{method: http.MethodDelete, key: key, query: url.Values{"uploadId": {u.UploadId}}}, nil)
			if err != nil && !errors.Is(err, storage.ErrNotExist) {
				return err
			}
		}
		if !doc.IsTruncated {
			return nil
		}
		query.Set("key-marker", doc.NextKeyMarker)
		query.Set("upload-id-marker", doc.NextUploadIdMarker)
	}
}
