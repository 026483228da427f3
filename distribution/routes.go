package distribution

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Route is one of the API's resources.
type Route int

// The routes, with the spec's endpoint ids.
const (
	RouteBase      Route = iota // end-1
	RouteBlob                   // end-2, end-10
	RouteManifest               // end-3, end-7, end-9
	RouteUploads                // end-4a, end-4b, end-11
	RouteUpload                 // end-5, end-6, end-13, end-14
	RouteTags                   // end-8a, end-8b
	RouteReferrers              // end-12a, end-12b
	RouteCatalog                // not in the spec; what came before it had it, and tools use it
	routeCount

	RouteNone Route = -1 // a path that is none of the API's
)

const apiPrefix = "/v2/"

// routes is the one table of paths: /v2/<name>/<tail>[<argument>]. An argument
// has no slash, so a path is read from its end and any repository name, even
// "a/blobs/uploads", is told apart from the route.
var routes = [routeCount]struct {
	name     string
	tail     string
	argument func(string) error // nil when the path ends with the tail
	methods  []string
}{
	RouteBase:      {"base", "", nil, []string{http.MethodGet, http.MethodHead}},
	RouteBlob:      {"blob", "/blobs/", validateDigest, []string{http.MethodGet, http.MethodHead, http.MethodDelete}},
	RouteManifest:  {"manifest", "/manifests/", validateTarget, []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete}},
	RouteUploads:   {"uploads", "/blobs/uploads/", nil, []string{http.MethodPost}},
	RouteUpload:    {"upload", "/blobs/uploads/", validateUploadID, []string{http.MethodGet, http.MethodPatch, http.MethodPut, http.MethodDelete}},
	RouteTags:      {"tags", "/tags/list", nil, []string{http.MethodGet, http.MethodHead}},
	RouteReferrers: {"referrers", "/referrers/", validateDigest, []string{http.MethodGet, http.MethodHead}},
	RouteCatalog:   {"catalog", "_catalog", nil, []string{http.MethodGet, http.MethodHead}},
}

func (r Route) String() string {
	if r == RouteNone {
		return "none"
	}
	if r < 0 || r >= routeCount {
		return fmt.Sprintf("route(%d)", int(r))
	}
	return routes[r].name
}

// Methods lists what a registry answers on the route.
func (r Route) Methods() []string { return slices.Clone(routes[r].methods) }

// Allows reports whether method is one of the route's methods.
func (r Route) Allows(method string) bool { return slices.Contains(routes[r].methods, method) }

// Endpoint is a path of the API, taken apart.
type Endpoint struct {
	Route    Route
	Name     string // repository; empty for RouteBase and RouteCatalog
	Argument string // digest, tag or upload id; empty where the route has none
}

// Path is the URL path of e. It contains nothing that needs escaping.
func (e Endpoint) Path() string {
	if e.Route == RouteBase || e.Route == RouteCatalog {
		return apiPrefix + routes[e.Route].tail
	}
	return apiPrefix + e.Name + routes[e.Route].tail + e.Argument
}

// ParsePath is the reverse of Path. Its errors are of the spec's codes:
// NAME_INVALID, DIGEST_INVALID, MANIFEST_INVALID for a bad tag, and
// UNSUPPORTED with ErrNotFound for a path that is none of the API's.
func ParsePath(path string) (Endpoint, error) {
	if path == apiPrefix || path == strings.TrimSuffix(apiPrefix, "/") {
		return Endpoint{Route: RouteBase}, nil
	}
	rest, ok := strings.CutPrefix(path, apiPrefix)
	if !ok {
		return Endpoint{}, fmt.Errorf("path: %w", ErrNotFound)
	}
	if rest == routes[RouteCatalog].tail {
		return Endpoint{Route: RouteCatalog}, nil
	}
	e, ok := cutTail(rest)
	if !ok {
		return Endpoint{}, fmt.Errorf("path: %w", ErrNotFound)
	}
	if err := ValidateName(e.Name); err != nil {
		return Endpoint{}, Errorf(CodeNameInvalid, "%s", clean(err.Error()))
	}
	if check := routes[e.Route].argument; check != nil {
		if err := check(e.Argument); err != nil {
			return Endpoint{}, err
		}
	}
	return e, nil
}

// cutTail finds the route whose tail ends rest. The longer tails come first
// in the search: "/blobs/uploads/" before "/blobs/".
func cutTail(rest string) (Endpoint, bool) {
	for _, r := range [...]Route{RouteTags, RouteUploads} {
		if name, ok := strings.CutSuffix(rest, routes[r].tail); ok {
			return Endpoint{Route: r, Name: name}, true
		}
	}
	slash := strings.LastIndexByte(rest, '/')
	if slash < 0 {
		return Endpoint{}, false
	}
	head, argument := rest[:slash+1], rest[slash+1:]
	for _, r := range [...]Route{RouteUpload, RouteBlob, RouteManifest, RouteReferrers} {
		if name, ok := strings.CutSuffix(head, routes[r].tail); ok {
			return Endpoint{Route: r, Name: name, Argument: argument}, true
		}
	}
	return Endpoint{}, false
}

func validateDigest(s string) error {
	if _, err := ParseDigest(s); err != nil {
		return &Error{Code: CodeDigestInvalid, Message: "invalid digest in path"}
	}
	return nil
}

// validateTarget takes a tag or a digest; no tag contains a colon.
func validateTarget(s string) error {
	if strings.Contains(s, ":") {
		return validateDigest(s)
	}
	if err := ValidateTag(s); err != nil {
		return Errorf(CodeManifestInvalid, "invalid tag in path")
	}
	return nil
}

// validateUploadID bounds what a registry may be asked for; the ids are the
// server's own, and to the client an upload's Location is opaque.
func validateUploadID(s string) error {
	if s == "" || len(s) > 128 {
		return Errorf(CodeBlobUploadUnknown, "invalid upload id")
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '-' {
			return Errorf(CodeBlobUploadUnknown, "invalid upload id")
		}
	}
	return nil
}
