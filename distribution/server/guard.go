package server

import (
	"errors"
	"net/http"
	"time"

	"github.com/tare-oci/tare/distribution"
)

// Action is what a request does to a repository.
type Action string

// The actions that a Guard allows or refuses.
const (
	ActionPull    Action = "pull"
	ActionPush    Action = "push"
	ActionDelete  Action = "delete"
	ActionCatalog Action = "catalog" // list the repositories; has no repository
	ActionMetrics Action = "metrics" // read the registry's figures; has no repository
)

// Access is one thing that a request needs to be allowed.
type Access struct {
	Repository string
	Action     Action
}

// Grant is what a Guard gives.
type Grant struct {
	// User is who asks, for the log; empty for anybody.
	User string
	// CreateOnly allows new tags but none to be moved to another manifest.
	CreateOnly bool
}

// Guard decides who may do what. Its methods are safe for concurrent use.
type Guard interface {
	// Allow checks all of what a request needs; base requests ("/v2/") need
	// nothing but to be somebody. Its errors are ErrUnauthorized (401: who are
	// you?), ErrDenied (403) and ErrTooManyRequests (429) of package
	// distribution.
	Allow(r *http.Request, need []Access) (Grant, error)
	// Challenge is the WWW-Authenticate header of an answer with 401, one
	// element a challenge.
	Challenge(r *http.Request, need []Access) []string
}

// actions says what a method does to a repository; a mount needs to pull from
// another one besides.
var actions = map[string]Action{
	http.MethodGet:    ActionPull,
	http.MethodHead:   ActionPull,
	http.MethodPost:   ActionPush,
	http.MethodPut:    ActionPush,
	http.MethodPatch:  ActionPush,
	http.MethodDelete: ActionDelete,
}

// needs lists what the request has to be allowed to do.
func (q *request) needs() []Access {
	switch q.Route {
	case distribution.RouteBase:
		return nil
	case distribution.RouteCatalog:
		return []Access{{Action: ActionCatalog}}
	case distribution.RouteUpload:
		return []Access{{q.Name, ActionPush}} // its status and its end, too
	}
	return []Access{{q.Name, actions[q.Method]}}
}

// guard asks the Guard, if there is one.
func (g *Registry) guard(q *request) error {
	if g.opts.Guard == nil {
		return nil
	}
	return g.allow(q, q.needs())
}

func (g *Registry) allow(q *request, need []Access) error {
	grant, err := g.opts.Guard.Allow(q.Request, need)
	q.grant = grant
	switch {
	case errors.Is(err, distribution.ErrUnauthorized):
		q.w.Header()["Www-Authenticate"] = g.opts.Guard.Challenge(q.Request, need)
		return plainError(distribution.CodeUnauthorized)
	case errors.Is(err, distribution.ErrDenied):
		return plainError(distribution.CodeDenied)
	case errors.Is(err, distribution.ErrTooManyRequests):
		return q.tooMany(5 * time.Second)
	}
	return err
}

// readable checks that the request may also pull from another repository, and
// else says that there is none: who may not read learns nothing.
func (g *Registry) readable(q *request, repo string) bool {
	if g.opts.Guard == nil || repo == q.Name {
		return true
	}
	_, err := g.opts.Guard.Allow(q.Request, []Access{{repo, ActionPull}})
	return err == nil
}
