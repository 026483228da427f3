package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/image"
)

// ErrForeign says that a layer is not distributed with its image, and that
// nobody has allowed to fetch it from where its descriptor says.
var ErrForeign = errors.New("layer is not distributed with the image")

// A foreign gets layers that are not distributed with their images (layer.md,
// "Non-Distributable Layers") from the URLs in their descriptors. Whoever made
// the manifest wrote those, so it takes the user's leave, no credentials go
// there, and what comes is verified as all else.
type foreign struct {
	allowed bool
	client  http.Client // the zero value is right
}

// isAbsent tells what registries and layouts say of a blob that they don't have.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, distribution.ErrNotFound)
}

// open reads a layer from offset on. cause is why it was not to be had from
// where the image is, and is returned where that is all there is to say.
func (f *foreign) open(ctx context.Context, desc v1.Descriptor, offset int64, cause error) (io.ReadCloser, error) {
	if !isAbsent(cause) || len(desc.URLs) == 0 || !image.LookupMediaType(desc.MediaType).Foreign {
		return nil, cause
	}
	if !f.allowed {
		return nil, fmt.Errorf("layer %s: %w, only at %.300q", desc.Digest, ErrForeign, desc.URLs[0])
	}
	const maxURLs = 16
	var errs []error
	for _, from := range desc.URLs[:min(len(desc.URLs), maxURLs)] {
		body, err := f.get(ctx, from, desc, offset)
		if err == nil {
			return body, nil
		}
		errs = append(errs, fmt.Errorf("from %.300q: %w", from, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("layer %s: %w", desc.Digest, errors.Join(errs...))
}

func (f *foreign) get(ctx context.Context, from string, desc v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if u, err := url.Parse(from); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return nil, errors.New("not an HTTP URL")
	}
	ctx, cancel := context.WithCancel(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	request.Header.Set("Accept-Encoding", "identity") // the digest is of the bytes as they are
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	body := &impatientBody{cancel: cancel}
	body.timer = time.AfterFunc(foreignIdleTimeout, cancel)
	answer, err := f.client.Do(request)
	if err != nil {
		body.timer.Stop()
		cancel()
		return nil, err
	}
	body.ReadCloser = answer.Body
	switch {
	case answer.StatusCode == http.StatusOK:
		_, err = io.CopyN(io.Discard, body, offset) // of one that knows no ranges
	case answer.StatusCode != http.StatusPartialContent || offset == 0:
		err = fmt.Errorf("answer %q", answer.Status)
	}
	if err == nil && answer.ContentLength > desc.Size {
		err = fmt.Errorf("%w: %d bytes, descriptor says %d", image.ErrMismatch, answer.ContentLength, desc.Size)
	}
	if err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

// foreignIdleTimeout is how long a server may take for the next bytes.
const foreignIdleTimeout = 60 * time.Second

// impatientBody is an answer's body that ends when nothing comes for too long.
type impatientBody struct {
	io.ReadCloser
	timer  *time.Timer
	cancel func()
}

func (b *impatientBody) Read(p []byte) (int, error) {
	b.timer.Reset(foreignIdleTimeout)
	return b.ReadCloser.Read(p)
}

func (b *impatientBody) Close() error {
	b.timer.Stop()
	b.cancel()
	return b.ReadCloser.Close()
}

// layersWithForeign are layers of which those that are missing come from where
// their descriptors say.
type layersWithForeign struct {
	layers
	foreign *foreign
}

func (l layersWithForeign) layer(ctx context.Context, desc v1.Descriptor, unpack func(io.Reader) error) error {
	err := l.layers.layer(ctx, desc, unpack)
	if unpack == nil || !isAbsent(err) {
		return err
	}
	r, err := l.foreign.open(ctx, desc, 0, err)
	if err != nil {
		return err
	}
	defer r.Close()
	verified, err := image.VerifyReader(r, desc)
	if err != nil {
		return err
	}
	return whole(ctx, verified, unpack(verified))
}
