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

// Tidy implements storage.Objects. What is left of a stream goes with it, but not
// what a registry that stood still has written after that. What is not in any list
// of objects is a multipart upload that nobody completed, whose parts the service
// keeps, and charges for.
func (o *Objects) Tidy(ctx context.Context, before time.Time) error {
	if err := o.tidyStreams(ctx, before); err != nil {
		return err
	}
	return o.tidyUploads(ctx, before)
}

// tidyStreams removes old pieces of streams that have ended.
func (o *Objects) tidyStreams(ctx context.Context, before time.Time) error {
	const page = 1000
	for after := ""; ; {
		ids, err := o.List(ctx, "streams", after, page)
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			if _, err := o.Stat(ctx, stateKey(id)); err == nil {
				continue
			} else if !errors.Is(err, storage.ErrNotExist) {
				return err
			}
			if err := o.removePieces(ctx, id, before); err != nil {
				return err
			}
		}
		after = ids[len(ids)-1]
	}
}

func (o *Objects) removePieces(ctx context.Context, id string, before time.Time) error {
	names, err := o.List(ctx, "streams/"+id, "", maxPieces)
	if err != nil {
		return err
	}
	for _, name := range names {
		key := "streams/" + id + "/" + name
		info, err := o.Stat(ctx, key)
		if err == nil && info.Modified.Before(before) {
			err = o.remove(ctx, key)
		}
		if err != nil && !errors.Is(err, storage.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (o *Objects) tidyUploads(ctx context.Context, before time.Time) error {
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
