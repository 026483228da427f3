// Package s3 keeps a registry's objects in a bucket of a service that speaks
// Amazon S3's API. It needs of it: conditional writes (If-None-Match and
// If-Match), multipart uploads with parts copied from other objects, and lists
// that show what was just written. Implements storage.Objects.
//
// The little of the API that it takes is spoken here and not by a client
// library: those bring dozens of modules and some MB for signing and XML.
package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// Options configure a driver.
type Options struct {
	Bucket, Prefix string
	Region         string // default us-east-1
	Endpoint       string // URL; default is Amazon's for the region
	Credentials    Credentials
}

// Objects is the driver.
type Objects struct {
	bucket, prefix string
	base           *url.URL
	signer         signer
	http           *http.Client
	copies         copies
}

var _ storage.Objects = (*Objects)(nil)

// ErrNoCredentials says that nobody has told the account's keys.
var ErrNoCredentials = errors.New("object storage needs an access key and a secret key")

// ParseLocation reads "s3://BUCKET/PREFIX".
func ParseLocation(location string) (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(location, "s3://")
	parts := strings.SplitN(rest+"/", "/", 2)
	bucket, prefix = parts[0], strings.Trim(parts[1], "/")
	if !ok || bucket == "" || strings.ContainsAny(bucket, "?#%@:") || prefix != "" && !iofs.ValidPath(prefix) {
		return "", "", fmt.Errorf("location %q: want s3://BUCKET/PREFIX", location)
	}
	return bucket, prefix, nil
}

// New makes a driver; it does not look whether the bucket is there.
func New(o Options) (*Objects, error) {
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if o.Endpoint == "" {
		o.Endpoint = "https://s3." + o.Region + ".amazonaws.com"
	}
	base, err := url.Parse(strings.TrimSuffix(o.Endpoint, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("endpoint %q: want http://HOST:PORT or https://HOST", o.Endpoint)
	}
	if o.Bucket == "" {
		return nil, errors.New("object storage needs a bucket")
	}
	if o.Credentials.AccessKey == "" || o.Credentials.SecretKey == "" {
		return nil, ErrNoCredentials
	}
	if o.Prefix != "" {
		o.Prefix += "/"
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	transport.ResponseHeaderTimeout = time.Minute
	return &Objects{
		bucket: o.Bucket, prefix: o.Prefix, base: base, signer: signer{o.Credentials, o.Region}, copies: serviceCopies,
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// check also knows that nothing can have too long a name: services differ in
// how they say so.
func check(key string) error {
	if !iofs.ValidPath(key) || key == "." {
		return fmt.Errorf("bad key %q", key)
	}
	for element := range strings.SplitSeq(key, "/") {
		if len(element) > 255 {
			return fmt.Errorf("key %.40q…: %w", key, storage.ErrNotExist)
		}
	}
	return nil
}

// Check implements storage.Objects.
func (o *Objects) Check(ctx context.Context) error {
	_, err := o.send(ctx, call{method: http.MethodHead}, nil)
	return err
}

// Get implements storage.Objects.
func (o *Objects) Get(ctx context.Context, key string, limit int64) ([]byte, error) {
	data, _, err := o.get(ctx, key, limit)
	return data, err
}

func (o *Objects) get(ctx context.Context, key string, limit int64) ([]byte, http.Header, error) {
	if err := check(key); err != nil {
		return nil, nil, err
	}
	resp, err := o.do(ctx, call{method: http.MethodGet, key: key})
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = distribution.ErrTooLarge
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", key, err)
	}
	return data, resp.Header, nil
}

// Stat implements storage.Objects.
func (o *Objects) Stat(ctx context.Context, key string) (storage.Info, error) {
	info, _, err := o.stat(ctx, key)
	return info, err
}

func (o *Objects) stat(ctx context.Context, key string) (info storage.Info, etag string, err error) {
	if err := check(key); err != nil {
		return info, "", err
	}
	header, err := o.send(ctx, call{method: http.MethodHead, key: key}, nil)
	if err != nil {
		return info, "", err
	}
	if info.SizeBytes, err = strconv.ParseInt(header.Get("Content-Length"), 10, 64); err != nil {
		return info, "", fmt.Errorf("stat %s: no Content-Length", key)
	}
	if info.Modified, err = http.ParseTime(header.Get("Last-Modified")); err != nil {
		return info, "", fmt.Errorf("stat %s: no Last-Modified", key)
	}
	return info, header.Get("Etag"), nil
}

// Put implements storage.Objects.
func (o *Objects) Put(ctx context.Context, key string, data []byte) error {
	_, err := o.put(ctx, key, data, nil)
	return err
}

func (o *Objects) put(ctx context.Context, key string, data []byte, header map[string]string) (etag string, err error) {
	if err := check(key); err != nil {
		return "", err
	}
	c := call{method: http.MethodPut, key: key, body: data, header: maps.Clone(header)}
	write := rand.Text()
	if len(header) > 0 {
		c.header[writeHeader] = write
	}
	answer, err := o.send(ctx, c, nil)
	if len(header) > 0 && errors.Is(err, errSentBefore) {
		// The condition may be met no more because of what we wrote ourselves.
		there, statErr := o.send(ctx, call{method: http.MethodHead, key: key}, nil)
		if statErr == nil && there.Get(writeHeader) == write {
			answer, err = there, nil
		}
	}
	if err != nil {
		return "", err
	}
	return answer.Get("Etag"), nil
}

// writeHeader is metadata of an object by which the call that wrote it is known.
const writeHeader = "X-Amz-Meta-Tare-Write"

// PutAll implements storage.Objects.
func (o *Objects) PutAll(ctx context.Context, objects []storage.Object) error {
	for _, object := range objects {
		if err := o.Put(ctx, object.Key, object.Data); err != nil {
			return err
		}
	}
	return nil
}

// PutScratch implements storage.Objects.
func (o *Objects) PutScratch(ctx context.Context, key string, data []byte) error {
	return o.Put(ctx, key, data)
}

// PutNew implements storage.Objects.
func (o *Objects) PutNew(ctx context.Context, key string, data []byte) error {
	_, err := o.put(ctx, key, data, map[string]string{"If-None-Match": "*"})
	return err
}

// Delete implements storage.Objects. The service says nothing of what was not
// there, so that is asked before.
func (o *Objects) Delete(ctx context.Context, key string) error {
	if _, err := o.Stat(ctx, key); err != nil {
		return err
	}
	return o.remove(ctx, key)
}

// DeleteScratch implements storage.Objects.
func (o *Objects) DeleteScratch(ctx context.Context, key string) error { return o.Delete(ctx, key) }

func (o *Objects) remove(ctx context.Context, key string) error {
	_, err := o.send(ctx, call{method: http.MethodDelete, key: key}, nil)
	return err
}

// List implements storage.Objects. The service sorts "a-b" before what is below
// "a/", where the contract has "a" first. So a page of the service is a page of
// ours only in directories without directories in them, which are those with a
// name that begins with "_", and a blob's "in"; others are read whole.
func (o *Objects) List(ctx context.Context, dir, after string, n int) ([]string, error) {
	if err := check(dir); err != nil {
		return nil, err
	}
	if n <= 0 {
		return nil, nil
	}
	plain := strings.HasPrefix(path.Base(dir), "_") || strings.HasPrefix(dir, "blobs/") && path.Base(dir) == "in"
	query := url.Values{"list-type": {"2"}, "delimiter": {"/"}, "prefix": {o.prefix + dir + "/"}}
	if plain && after != "" {
		query.Set("start-after", o.prefix+dir+"/"+after)
	}
	if plain && n < 1000 {
		query.Set("max-keys", strconv.Itoa(n))
	}
	var names []string
	for {
		page, token, err := o.listPage(ctx, query)
		if err != nil {
			return nil, err
		}
		for _, name := range page {
			if name > after {
				names = append(names, name)
			}
		}
		if token == "" || plain && len(names) >= n {
			break
		}
		query.Set("continuation-token", token)
	}
	slices.Sort(names)
	return names[:min(n, len(names))], nil
}

func (o *Objects) listPage(ctx context.Context, query url.Values) (names []string, token string, err error) {
	var doc struct {
		Contents              []struct{ Key string }
		CommonPrefixes        []struct{ Prefix string }
		NextContinuationToken string
		IsTruncated           bool
	}
	if _, err := o.send(ctx, call{method: http.MethodGet, query: query}, &doc); err != nil {
		return nil, "", err
	}
	prefix := query.Get("prefix")
	for _, c := range doc.Contents {
		if name := strings.TrimPrefix(c.Key, prefix); name != "" {
			names = append(names, name)
		}
	}
	for _, c := range doc.CommonPrefixes {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(c.Prefix, prefix), "/"))
	}
	if !doc.IsTruncated {
		return names, "", nil
	}
	return names, doc.NextContinuationToken, nil
}

// URL implements storage.Redirector.
func (o *Objects) URL(key string, life time.Duration) (string, error) {
	if err := check(key); err != nil {
		return "", err
	}
	return o.signer.presign(o.url(key), life, time.Now()), nil
}

// Open implements storage.Objects. The answer to the first request is one
// version whole; what is read from elsewhere has to be of the same.
func (o *Objects) Open(ctx context.Context, key string) (io.ReadSeekCloser, int64, error) {
	if err := check(key); err != nil {
		return nil, 0, err
	}
	resp, err := o.do(ctx, call{method: http.MethodGet, key: key})
	if err != nil {
		return nil, 0, err
	}
	if resp.ContentLength < 0 {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("open %s: no Content-Length", key)
	}
	r := &reader{ctx: ctx, o: o, key: key, size: resp.ContentLength, etag: resp.Header.Get("Etag"), body: resp.Body}
	return r, r.size, nil
}

// reader reads an object from wherever it is told to.
type reader struct {
	ctx    context.Context
	o      *Objects
	key    string
	size   int64
	etag   string
	body   io.ReadCloser // nil after an error
	at     int64         // where body is
	offset int64         // where the caller is
}

func (r *reader) Read(p []byte) (int, error) {
	if r.offset >= r.size {
		return 0, io.EOF
	}
	if r.body == nil || r.at != r.offset {
		if err := r.reopen(); err != nil {
			return 0, err
		}
	}
	n, err := r.body.Read(p)
	r.offset += int64(n)
	r.at = r.offset
	if err == io.EOF && r.offset < r.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (r *reader) reopen() error {
	r.Close()
	resp, err := r.o.do(r.ctx, call{method: http.MethodGet, key: r.key, header: map[string]string{
		"Range":    "bytes=" + strconv.FormatInt(r.offset, 10) + "-",
		"If-Match": r.etag,
	}})
	if err != nil {
		return err
	}
	span, err := distribution.ParseContentRange(resp.Header.Get("Content-Range"))
	if err != nil || span.First != r.offset || span.Size != r.size {
		resp.Body.Close()
		return fmt.Errorf("read %s: not the range that was asked for", r.key)
	}
	r.body, r.at = resp.Body, r.offset
	return nil
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	r.offset = offset
	return offset, nil
}

func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}
