package distribution

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// What a caller may want to tell apart; everything else is only to be read.
var (
	ErrInvalidReference = errors.New("invalid reference")
	ErrNotFound         = errors.New("not found")
	ErrUnauthorized     = errors.New("authentication required")
	ErrDenied           = errors.New("access denied")
	ErrTooManyRequests  = errors.New("too many requests")
	ErrUnsupported      = errors.New("not supported by the registry")
	ErrTooLarge         = errors.New("too large")
	ErrDigestMismatch   = errors.New("digest mismatch")
	ErrSizeMismatch     = errors.New("size mismatch")
	ErrInvalidManifest  = errors.New("invalid manifest")
)

// Code is an error identifier of the spec's table "Error Codes".
type Code string

// The codes, code-1 to code-14, and one for what has no code of its own.
const (
	CodeBlobUnknown         Code = "BLOB_UNKNOWN"
	CodeBlobUploadInvalid   Code = "BLOB_UPLOAD_INVALID"
	CodeBlobUploadUnknown   Code = "BLOB_UPLOAD_UNKNOWN"
	CodeDigestInvalid       Code = "DIGEST_INVALID"
	CodeManifestBlobUnknown Code = "MANIFEST_BLOB_UNKNOWN"
	CodeManifestInvalid     Code = "MANIFEST_INVALID"
	CodeManifestUnknown     Code = "MANIFEST_UNKNOWN"
	CodeNameInvalid         Code = "NAME_INVALID"
	CodeNameUnknown         Code = "NAME_UNKNOWN"
	CodeSizeInvalid         Code = "SIZE_INVALID"
	CodeUnauthorized        Code = "UNAUTHORIZED"
	CodeDenied              Code = "DENIED"
	CodeUnsupported         Code = "UNSUPPORTED"
	CodeTooManyRequests     Code = "TOOMANYREQUESTS"
	CodeUnknown             Code = "UNKNOWN"
)

// codes is the one table: a server goes from code to status and message, a
// client from code (or, where there is no body, from status) to sentinel.
var codes = [...]struct {
	code    Code
	status  int
	message string
	err     error
}{
	{CodeBlobUnknown, http.StatusNotFound, "blob unknown to registry", ErrNotFound},
	{CodeBlobUploadInvalid, http.StatusBadRequest, "blob upload invalid", nil},
	{CodeBlobUploadUnknown, http.StatusNotFound, "blob upload unknown to registry", ErrNotFound},
	{CodeDigestInvalid, http.StatusBadRequest, "provided digest did not match uploaded content", ErrDigestMismatch},
	{CodeManifestBlobUnknown, http.StatusBadRequest, "manifest references a manifest or blob unknown to registry", nil},
	{CodeManifestInvalid, http.StatusBadRequest, "manifest invalid", ErrInvalidManifest},
	{CodeManifestUnknown, http.StatusNotFound, "manifest unknown to registry", ErrNotFound},
	{CodeNameInvalid, http.StatusBadRequest, "invalid repository name", ErrInvalidReference},
	{CodeNameUnknown, http.StatusNotFound, "repository name not known to registry", ErrNotFound},
	{CodeSizeInvalid, http.StatusBadRequest, "provided length did not match content length", ErrSizeMismatch},
	{CodeUnauthorized, http.StatusUnauthorized, "authentication required", ErrUnauthorized},
	{CodeDenied, http.StatusForbidden, "requested access to the resource is denied", ErrDenied},
	{CodeUnsupported, http.StatusMethodNotAllowed, "the operation is unsupported", ErrUnsupported},
	{CodeTooManyRequests, http.StatusTooManyRequests, "too many requests", ErrTooManyRequests},
	{CodeUnknown, http.StatusInternalServerError, "internal error", nil},
}

// Status is the HTTP status a server answers with by default.
func (c Code) Status() int {
	for _, row := range codes {
		if row.code == c {
			return row.status
		}
	}
	return http.StatusInternalServerError
}

// Message is the spec's description of the code.
func (c Code) Message() string {
	for _, row := range codes {
		if row.code == c {
			return row.message
		}
	}
	return "unknown error"
}

func (c Code) sentinel() error {
	for _, row := range codes {
		if row.code == c {
			return row.err
		}
	}
	return nil
}

// CodeForStatus is the table read the other way, for an answer without a
// body: the one code that has this status by itself, else CodeUnknown.
func CodeForStatus(status int) Code {
	found := CodeUnknown
	for _, row := range codes {
		if row.status == status && row.code != CodeUnknown {
			if found != CodeUnknown {
				return CodeUnknown
			}
			found = row.code
		}
	}
	return found
}

// Error is one entry of an error body. A server returns one; a client finds
// them in a ResponseError.
type Error struct {
	Code    Code            `json:"code"`
	Message string          `json:"message,omitempty"`
	Detail  json.RawMessage `json:"detail,omitempty"`
}

// Errorf makes an Error with the code's own message and more words.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: code.Message() + ": " + fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string {
	if e.Message == "" {
		return string(e.Code) + ": " + e.Code.Message()
	}
	return string(e.Code) + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.Code.sentinel() }

// ResponseError is a registry's refusal, as the client saw it.
type ResponseError struct {
	Status     int
	Errors     []Error
	RetryAfter time.Duration // zero unless the registry asked for a pause
}

const (
	maxErrorEntries = 8
	maxMessageBytes = 512
)

// ParseErrorBody reads an error answer; a body that is no error body counts
// as none. What a registry says is quoted to people and to logs, so control
// characters and length are tamed here.
func ParseErrorBody(status int, body []byte) *ResponseError {
	var doc struct {
		Errors []Error `json:"errors"`
	}
	re := &ResponseError{Status: status}
	if len(body) > MaxErrorBodyBytes || json.Unmarshal(body, &doc) != nil {
		return re
	}
	for _, e := range doc.Errors[:min(len(doc.Errors), maxErrorEntries)] {
		e.Code = Code(clean(string(e.Code)))
		e.Message = clean(e.Message)
		re.Errors = append(re.Errors, e)
	}
	return re
}

// EncodeErrorBody is the body of an answer that reports errs.
func EncodeErrorBody(errs ...*Error) []byte {
	b, err := json.Marshal(map[string][]*Error{"errors": errs})
	if err != nil { // a Detail that is not JSON
		return []byte(`{"errors":[{"code":"UNKNOWN"}]}`)
	}
	return b
}

func clean(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxMessageBytes {
		s = strings.ToValidUTF8(s[:maxMessageBytes], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

func (e *ResponseError) Error() string {
	s := fmt.Sprintf("registry answered %d %s", e.Status, http.StatusText(e.Status))
	for i := range e.Errors {
		s += ": " + e.Errors[i].Error()
	}
	if e.RetryAfter > 0 {
		s += fmt.Sprintf(" (asks to wait %s)", e.RetryAfter)
	}
	return s
}

// Unwrap lets errors.Is find the sentinels: those of the codes, and those the
// status alone implies, since many proxies answer without an error body.
func (e *ResponseError) Unwrap() []error {
	var errs []error
	for i := range e.Errors {
		errs = append(errs, &e.Errors[i])
	}
	switch e.Status {
	case http.StatusNotFound:
		errs = append(errs, ErrNotFound)
	case http.StatusRequestEntityTooLarge:
		errs = append(errs, ErrTooLarge)
	default:
		if err := CodeForStatus(e.Status).sentinel(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
