package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// copies says how objects are copied.
type copies struct {
	maxBytes  int64 // what the service copies in one piece
	partBytes int64 // of what is larger
}

var serviceCopies = copies{maxBytes: 5 << 30, partBytes: 1 << 30}

// Move implements storage.Objects: the service copies, and the old one goes.
func (o *Objects) Move(ctx context.Context, from, to string) error {
	if err := check(to); err != nil {
		return err
	}
	info, etag, err := o.stat(ctx, from)
	if err != nil {
		return err
	}
	if info.SizeBytes > o.copies.maxBytes {
		err = o.copyLarge(ctx, from, to, info.SizeBytes)
	} else {
		header := map[string]string{"X-Amz-Copy-Source": o.copySource(from)}
		_, copyErr := o.copyPart(ctx, call{method: http.MethodPut, key: to, header: header})
		err = copyErr
	}
	if err != nil {
		return fmt.Errorf("move %s: %w", from, err)
	}
	return o.removeCopied(ctx, from, to, etag)
}

// removeCopied ends a Move. To copy takes its time, in which another may have
// written the object anew. Services that know no conditions of a DELETE have a
// moment left in which that is not seen.
func (o *Objects) removeCopied(ctx context.Context, from, to, etag string) error {
	_, now, err := o.stat(ctx, from)
	if err == nil && now != etag {
		err = storage.ErrBusy
	}
	if err == nil {
		_, err = o.send(ctx, call{method: http.MethodDelete, key: from, header: map[string]string{"If-Match": etag}}, nil)
		if refusal, ok := errors.AsType[*Error](err); ok && refusal.Status == http.StatusNotImplemented {
			err = o.remove(ctx, from)
		}
	}
	switch {
	case errors.Is(err, storage.ErrNotExist):
		return nil
	case errors.Is(err, storage.ErrBusy), errors.Is(err, storage.ErrExist):
		return errors.Join(fmt.Errorf("move %s: written meanwhile: %w", from, storage.ErrBusy), o.remove(ctx, to))
	}
	return err
}

func (o *Objects) copySource(key string) string {
	return escapePath("/" + o.bucket + "/" + o.prefix + key)
}

func (o *Objects) copyLarge(ctx context.Context, from, to string, sizeBytes int64) error {
	partBytes := o.copies.partBytes
	return o.multipart(ctx, to, func(uploadID string) (parts []part, err error) {
		for first := int64(0); first < sizeBytes; first += partBytes {
			p := part{PartNumber: len(parts) + 1}
			c := call{
				method: http.MethodPut, key: to,
				query: url.Values{"uploadId": {uploadID}, "partNumber": {strconv.Itoa(p.PartNumber)}},
				header: map[string]string{
					"X-Amz-Copy-Source":       o.copySource(from),
					"X-Amz-Copy-Source-Range": fmt.Sprintf("bytes=%d-%d", first, min(first+partBytes, sizeBytes)-1),
				},
			}
			if p.ETag, err = o.copyPart(ctx, c); err != nil {
				return nil, err
			}
			parts = append(parts, p)
		}
		return parts, nil
	})
}

func (o *Objects) copyPart(ctx context.Context, c call) (etag string, err error) {
	var copied struct{ ETag string }
	if _, err := o.send(ctx, c, &copied); err != nil {
		return "", err
	}
	return copied.ETag, nil
}
