package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// call is one request to the service.
type call struct {
	method string
	key    string // below the prefix; empty for the bucket itself
	query  url.Values
	header map[string]string
	body   []byte
}

// Error is a refusal by the service.
type Error struct {
	Status  int
	Code    string
	Message string
}

func (e *Error) Error() string {
	return fmt.Sprintf("object storage answered %d %s: %s", e.Status, e.Code, e.Message)
}

// Is gives refusals the names that storage has for them.
func (e *Error) Is(target error) bool {
	switch target {
	case storage.ErrNotExist:
		return e.Status == http.StatusNotFound && e.Code != "NoSuchBucket"
	case storage.ErrExist:
		return e.Status == http.StatusPreconditionFailed
	case storage.ErrNoSpace:
		return e.Status == http.StatusInsufficientStorage || e.Code == "QuotaExceeded" || strings.HasSuffix(e.Code, "StorageFull")
	}
	return false
}

const (
	tries         = 5
	firstPause    = 100 * time.Millisecond
	maxErrorBytes = 64 << 10
	maxListBytes  = 16 << 20
)

// errSentBefore stands beside the error of a call that was sent several times. An
// earlier one, whose answer was lost, may have done what the call is for.
var errSentBefore = errors.New("sent before")

// do sends a call, again if it may help, and returns the answer, whose body the
// caller closes. Statuses from 300 on are an *Error.
func (o *Objects) do(ctx context.Context, c call) (*http.Response, error) {
	pause := firstPause
	for try := 1; ; try++ {
		resp, err := o.once(ctx, c)
		if err == nil || ctx.Err() != nil || try == tries || !again(err) {
			if err != nil && try > 1 {
				err = fmt.Errorf("%w: %w", err, errSentBefore)
			}
			if err != nil {
				err = fmt.Errorf("%s %s: %w", c.method, c.key, err)
			}
			return resp, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause *= 2
	}
}

// again reports whether the same call may go better later.
func again(err error) bool {
	refused, ok := errors.AsType[*Error](err)
	return !ok || refused.Status >= 500 && refused.Status != http.StatusNotImplemented && !errors.Is(err, storage.ErrNoSpace) ||
		refused.Status == http.StatusTooManyRequests || refused.Status == http.StatusRequestTimeout || refused.Status == http.StatusConflict
}

func (o *Objects) once(ctx context.Context, c call) (*http.Response, error) {
	u := o.url(c.key)
	u.RawQuery = canonicalQuery(c.query)
	r, err := http.NewRequestWithContext(ctx, c.method, u.String(), bytes.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	r.URL = &u
	r.ContentLength = int64(len(c.body))
	if len(c.body) == 0 {
		r.Body = http.NoBody
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	hash := emptySHA256
	if len(c.body) > 0 {
		sum := sha256.Sum256(c.body)
		hash = hex.EncodeToString(sum[:])
	}
	o.signer.sign(r, hash, time.Now())
	resp, err := o.http.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, parseError(resp)
}

func parseError(resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, Code: http.StatusText(resp.StatusCode)}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	var doc struct{ Code, Message string }
	if err == nil && xml.Unmarshal(body, &doc) == nil && doc.Code != "" {
		e.Code, e.Message = doc.Code, doc.Message
	}
	return e
}

// send is do for calls whose answer has no body of interest, or an XML one.
func (o *Objects) send(ctx context.Context, c call, into any) (http.Header, error) {
	resp, err := o.do(ctx, c)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxListBytes))
	if err == nil && into != nil {
		err = decode(body, into)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: read answer: %w", c.method, c.key, err)
	}
	return resp.Header, err
}

// decode reads an XML answer. A copy or the end of a multipart upload may fail
// after the status was sent, so that a 200 has an error in it.
func decode(body []byte, into any) error {
	var failed struct {
		XMLName       xml.Name
		Code, Message string
	}
	if err := xml.Unmarshal(body, &failed); err != nil {
		return err
	}
	if failed.XMLName.Local == "Error" {
		return &Error{Status: http.StatusInternalServerError, Code: failed.Code, Message: failed.Message}
	}
	return xml.Unmarshal(body, into)
}

func (o *Objects) url(key string) url.URL {
	path := o.base.Path + "/" + o.bucket
	if key != "" {
		path += "/" + o.prefix + key
	}
	return url.URL{Scheme: o.base.Scheme, Host: o.base.Host, Path: path, RawPath: escapePath(path)}
}
