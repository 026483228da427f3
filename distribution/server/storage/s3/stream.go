package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// A stream is a list of pieces, each an object of its own; the commit has the
// service copy them together. So a stream's bytes go through here once, any
// registry can go on with it, and nothing is lost with a process.
//
// A registry that stood still may have lost the lock of what it writes to, and
// not know. So each call writes pieces of its own, never another's, and replaces
// the list only if it still is the one that it has read. What a caller remembers
// of a stream is good as long as the last byte before its mark is of the same
// writer: as the list only ever grows at its end or is cut there, all before that
// is the same then, too.
type stream struct {
	Pieces []piece `json:"pieces"`
	etag   string  // of the list as it was read; empty if there was none
}

type piece struct {
	Writer    string `json:"writer"` // random, of the call that wrote it
	Number    int    `json:"number"` // among that writer's
	SizeBytes int64  `json:"size"`   // as far as it counts; the object may be larger
}

// What the service takes: parts of at least 5 MiB but the last, at most 10,000.
const (
	minPartBytes  = 5 << 20
	pieceBytes    = 8 << 20
	largePiece    = 64 << 20 // from the manyPieces-th on
	manyPieces    = 5000
	maxPieces     = 10_000
	maxStateBytes = 1 << 20
	copiesAtOnce  = 4
)

func stateKey(id string) string { return "streams/" + id + "/state" }

func (p piece) key(id string) string {
	return "streams/" + id + "/" + p.Writer + "-" + strconv.Itoa(p.Number)
}

func (s *stream) size() (n int64) {
	for _, p := range s.Pieces {
		n += p.SizeBytes
	}
	return n
}

// mark is the stream's end.
func (s *stream) mark() storage.Mark {
	m := storage.Mark{Offset: s.size()}
	if len(s.Pieces) > 0 {
		m.Writer = s.Pieces[len(s.Pieces)-1].Writer
	}
	return m
}

// truncate drops what is beyond a mark, if it is one of these bytes.
func (s *stream) truncate(id string, at storage.Mark) error {
	if size := s.size(); size < at.Offset {
		return fmt.Errorf("stream %s has %d bytes, not %d: %w", id, size, at.Offset, storage.ErrOffset)
	}
	s.cut(at.Offset)
	if s.mark() != at {
		return fmt.Errorf("stream %s was written by another: %w", id, storage.ErrOffset)
	}
	return nil
}

func (s *stream) cut(size int64) {
	for i := range s.Pieces {
		if size <= s.Pieces[i].SizeBytes {
			s.Pieces[i].SizeBytes = size
			s.Pieces = s.Pieces[:i+1]
			if size == 0 {
				s.Pieces = s.Pieces[:i]
			}
			return
		}
		size -= s.Pieces[i].SizeBytes
	}
}

func (o *Objects) stream(ctx context.Context, id string) (*stream, error) {
	data, header, err := o.get(ctx, stateKey(id), maxStateBytes)
	if err != nil {
		return nil, err
	}
	s := &stream{etag: header.Get("Etag")}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("stream %s: %w", id, err)
	}
	return s, nil
}

// AppendStream implements storage.Objects.
func (o *Objects) AppendStream(ctx context.Context, id string, from storage.Mark, r io.Reader) (storage.Mark, error) {
	s, err := o.stream(ctx, id)
	if errors.Is(err, storage.ErrNotExist) && from.Offset == 0 {
		s, err = &stream{}, nil
	}
	if err == nil {
		err = s.truncate(id, from)
	}
	if err != nil {
		return from, err
	}
	// What came is kept although the request has ended.
	keep := context.WithoutCancel(ctx)
	readErr, err := o.appendPieces(keep, id, s, r)
	if err == nil {
		err = o.putStream(keep, id, s)
	}
	if err != nil {
		return from, err
	}
	return s.mark(), readErr
}

// putStream writes the list, if nobody else has.
func (o *Objects) putStream(ctx context.Context, id string, s *stream) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	condition := map[string]string{"If-Match": s.etag}
	if s.etag == "" {
		condition = map[string]string{"If-None-Match": "*"}
	}
	etag, err := o.put(ctx, stateKey(id), data, condition)
	if errors.Is(err, storage.ErrExist) || s.etag != "" && errors.Is(err, storage.ErrNotExist) {
		return fmt.Errorf("stream %s was written by another: %w", id, storage.ErrBusy)
	}
	s.etag = etag
	return err
}

// appendPieces writes r as pieces. readErr is r's own, which leaves what came
// before it.
func (o *Objects) appendPieces(ctx context.Context, id string, s *stream, r io.Reader) (readErr, err error) {
	var buffer bytes.Buffer
	next := piece{Writer: rand.Text()}
	for {
		limit := int64(pieceBytes)
		if len(s.Pieces) >= manyPieces {
			limit = largePiece
		}
		buffer.Reset()
		n, readErr := buffer.ReadFrom(io.LimitReader(r, limit))
		if n > 0 {
			if len(s.Pieces) >= maxPieces {
				return readErr, fmt.Errorf("stream %s: more than %d pieces", id, maxPieces)
			}
			if err := o.Put(ctx, next.key(id), buffer.Bytes()); err != nil {
				return readErr, err
			}
			next.SizeBytes = n
			s.Pieces = append(s.Pieces, next)
			next.Number++
		}
		if readErr != nil || n < limit {
			return readErr, nil
		}
	}
}

// CommitStream implements storage.Objects.
func (o *Objects) CommitStream(ctx context.Context, id string, at storage.Mark, key string) error {
	if err := check(key); err != nil {
		return err
	}
	s, err := o.stream(ctx, id)
	if err == nil {
		err = s.truncate(id, at)
	}
	if err != nil {
		return err
	}
	if at.Offset <= minPartBytes {
		err = o.commitSmall(ctx, id, s, key)
	} else {
		err = o.commitLarge(ctx, id, s, key)
	}
	if err != nil {
		return fmt.Errorf("commit stream %s: %w", id, err)
	}
	return o.DiscardStream(ctx, id)
}

// commitSmall is for what is read and written faster than it is put together.
func (o *Objects) commitSmall(ctx context.Context, id string, s *stream, key string) error {
	var data []byte
	for _, p := range s.Pieces {
		part, err := o.Get(ctx, p.key(id), largePiece)
		if err != nil {
			return err
		}
		data = append(data, part[:p.SizeBytes]...)
	}
	return o.Put(ctx, key, data)
}

type part struct {
	PartNumber int
	ETag       string
}

// commitLarge lets the service put the pieces together.
func (o *Objects) commitLarge(ctx context.Context, id string, s *stream, key string) error {
	return o.multipart(ctx, key, func(uploadID string) ([]part, error) { return o.copyParts(ctx, id, s, key, uploadID) })
}

// multipart makes an object of parts.
func (o *Objects) multipart(ctx context.Context, key string, makeParts func(uploadID string) ([]part, error)) error {
	var started struct {
		UploadID string `xml:"UploadId"`
	}
	if _, err := o.send(ctx, call{method: http.MethodPost, key: key, query: url.Values{"uploads": {""}}}, &started); err != nil {
		return err
	}
	upload := url.Values{"uploadId": {started.UploadID}}
	parts, err := makeParts(started.UploadID)
	if err == nil {
		var body []byte
		body, err = xml.Marshal(struct {
			XMLName xml.Name `xml:"CompleteMultipartUpload"`
			Part    []part
		}{Part: parts})
		if err == nil {
			_, err = o.send(ctx, call{method: http.MethodPost, key: key, query: upload, body: body}, &struct{ ETag string }{})
		}
	}
	if err != nil {
		_, abortErr := o.send(context.WithoutCancel(ctx), call{method: http.MethodDelete, key: key, query: upload}, nil)
		return errors.Join(err, abortErr)
	}
	return nil
}

// copyParts makes a part of each piece; those too small for that are read and
// written together with what follows.
func (o *Objects) copyParts(ctx context.Context, id string, s *stream, key, uploadID string) ([]part, error) {
	groups := group(s.Pieces)
	parts := make([]part, len(groups))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(copiesAtOnce)
	for i, pieces := range groups {
		g.Go(func() (err error) {
			query := url.Values{"uploadId": {uploadID}, "partNumber": {strconv.Itoa(i + 1)}}
			parts[i].PartNumber = i + 1
			parts[i].ETag, err = o.makePart(ctx, id, pieces, call{method: http.MethodPut, key: key, query: query})
			return err
		})
	}
	return parts, g.Wait()
}

// group divides pieces so that each group but the last is large enough.
func group(pieces []piece) (groups [][]piece) {
	var size int64
	start := 0
	for i, p := range pieces {
		if size += p.SizeBytes; size >= minPartBytes || i == len(pieces)-1 {
			groups = append(groups, pieces[start:i+1])
			start, size = i+1, 0
		}
	}
	return groups
}

func (o *Objects) makePart(ctx context.Context, id string, pieces []piece, c call) (etag string, err error) {
	if len(pieces) == 1 {
		c.header = map[string]string{
			"X-Amz-Copy-Source":       o.copySource(pieces[0].key(id)),
			"X-Amz-Copy-Source-Range": fmt.Sprintf("bytes=0-%d", pieces[0].SizeBytes-1),
		}
		return o.copyPart(ctx, c)
	}
	for _, p := range pieces {
		data, err := o.Get(ctx, p.key(id), largePiece)
		if err != nil {
			return "", err
		}
		c.body = append(c.body, data[:p.SizeBytes]...)
	}
	header, err := o.send(ctx, c, nil)
	return header.Get("Etag"), err
}

// DiscardStream implements storage.Objects. The state goes first: without it
// the stream has ended, whatever is left of its pieces.
func (o *Objects) DiscardStream(ctx context.Context, id string) error {
	if err := check(stateKey(id)); err != nil {
		return err
	}
	if err := o.remove(ctx, stateKey(id)); err != nil {
		return err
	}
	names, err := o.List(ctx, "streams/"+id, "", maxPieces)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := o.remove(ctx, "streams/"+id+"/"+name); err != nil {
			return err
		}
	}
	return nil
}
