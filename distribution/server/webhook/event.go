package webhook

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
)

// What an event can be about.
const (
	ActionPush   = "push"   // of a manifest
	ActionPull   = "pull"   // of a manifest
	ActionDelete = "delete" // of a manifest or tag
	ActionMount  = "mount"  // of a blob, from another repository
)

// Event is something that has happened to a repository.
type Event struct {
	ID         string
	Time       time.Time
	Action     string
	Repository string
	Tags       []string      // that were pushed, pulled by or deleted
	Digest     digest.Digest // empty for a deleted tag
	MediaType  string        // of a manifest that was pushed or pulled
	SizeBytes  int64         // of the same
	From       string        // the repository that a blob was mounted from, if the client named one
	User       string        // empty for anybody

	URL, Host, Method, Client, Agent string // of the request
}

// actionOf is what a request was, "" if nothing to tell of.
func actionOf(seen *server.Observation) string {
	switch {
	case seen.Route == distribution.RouteManifest && seen.Method == http.MethodGet && seen.Status == http.StatusOK:
		return ActionPull
	case seen.Route == distribution.RouteManifest && seen.Method == http.MethodPut && seen.Status == http.StatusCreated:
		return ActionPush
	case seen.Route == distribution.RouteManifest && seen.Method == http.MethodDelete && seen.Status == http.StatusAccepted:
		return ActionDelete
	case seen.Route == distribution.RouteUploads && seen.Status == http.StatusCreated && seen.ReadBytes == 0 && seen.URL.Query().Has("mount"):
		return ActionMount
	}
	return ""
}

// What waits is kept in memory.
const (
	maxAgentBytes = 256
	maxHostBytes  = 255 + len(":65535")
)

func newEvent(action string, seen *server.Observation) Event {
	e := Event{
		ID: rand.Text(), Time: time.Now().UTC(), Action: action, Repository: seen.Name,
		Digest: seen.Digest, MediaType: seen.MediaType, User: seen.User,
		Host: seen.Host, Method: seen.Method, Client: seen.RemoteAddr, Agent: seen.UserAgent(),
	}
	if len(e.Host) > maxHostBytes {
		e.Host = ""
	}
	if len(e.Agent) > maxAgentBytes {
		e.Agent = e.Agent[:maxAgentBytes]
	}
	if seen.Client.IsValid() { // beyond proxies
		e.Client = seen.Client.String()
	}
	query := seen.URL.Query()
	switch action {
	case ActionMount:
		e.From = query.Get("from")
	case ActionPush:
		e.SizeBytes, e.Tags = seen.ReadBytes, query["tag"]
	case ActionPull:
		e.SizeBytes = seen.SentBytes
	}
	if action != ActionMount && !strings.Contains(seen.Argument, ":") {
		e.Tags = append([]string{seen.Argument}, e.Tags...)
	}
	scheme := "http"
	if seen.TLS != nil {
		scheme = "https"
	}
	at := distribution.Endpoint{Route: seen.Route, Name: seen.Name, Argument: seen.Argument}
	if action == ActionMount {
		at.Route = distribution.RouteBlob
	}
	if e.Digest != "" {
		at.Argument = e.Digest.String()
	}
	e.URL = scheme + "://" + e.Host + at.Path()
	return e
}

// subject is what the event is about, as references are written.
func (e Event) subject() string {
	s := e.Repository
	if len(e.Tags) > 0 {
		s += ":" + e.Tags[0]
	}
	if e.Digest != "" {
		s += "@" + e.Digest.String()
	}
	return s
}

// typePrefix begins the types of our CloudEvents.
const typePrefix = "com.github.tare-oci.registry."

// cloudEvent is the structured form of CloudEvents 1.0 ("JSON Event Format").
type cloudEvent struct {
	SpecVersion string         `json:"specversion"`
	ID          string         `json:"id"`
	Source      string         `json:"source"`
	Type        string         `json:"type"`
	Subject     string         `json:"subject"`
	Time        time.Time      `json:"time"`
	ContentType string         `json:"datacontenttype"`
	Data        cloudEventData `json:"data"`
}

type cloudEventData struct {
	Action     string        `json:"action"`
	Repository string        `json:"repository"`
	Tags       []string      `json:"tags,omitempty"`
	Digest     digest.Digest `json:"digest,omitempty"`
	MediaType  string        `json:"mediaType,omitempty"`
	SizeBytes  int64         `json:"size,omitempty"`
	From       string        `json:"from,omitempty"`
	User       string        `json:"user,omitempty"`
	URL        string        `json:"url"`
	Client     string        `json:"client"`
	Agent      string        `json:"agent,omitempty"`
}

// envelope is CNCF distribution's, as its documentation has it ("Envelope").
type envelope struct {
	Events []notification `json:"events"`
}

type notification struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"`
	Target    struct {
		MediaType      string        `json:"mediaType,omitempty"`
		SizeBytes      int64         `json:"size,omitempty"`
		Digest         digest.Digest `json:"digest,omitempty"`
		LengthBytes    int64         `json:"length,omitempty"`
		Repository     string        `json:"repository"`
		FromRepository string        `json:"fromRepository,omitempty"`
		URL            string        `json:"url,omitempty"`
		Tag            string        `json:"tag,omitempty"`
	} `json:"target"`
	Request struct {
		ID     string `json:"id"`
		Addr   string `json:"addr"`
		Host   string `json:"host"`
		Method string `json:"method"`
		Agent  string `json:"useragent"`
	} `json:"request"`
	Actor struct {
		Name string `json:"name,omitempty"`
	} `json:"actor"`
	Source struct {
		Addr string `json:"addr,omitempty"`
	} `json:"source"`
}

// encode makes the body of a request.
func encode(format, source string, e Event) (contentType string, body []byte, err error) {
	if format == "cloudevents" {
		body, err = json.Marshal(cloudEvent{
			SpecVersion: "1.0", ID: e.ID, Source: source, Type: typePrefix + e.Action, Subject: e.subject(),
			Time: e.Time, ContentType: "application/json",
			Data: cloudEventData{
				Action: e.Action, Repository: e.Repository, Tags: e.Tags, Digest: e.Digest, MediaType: e.MediaType,
				SizeBytes: e.SizeBytes, From: e.From, User: e.User, URL: e.URL, Client: e.Client, Agent: e.Agent,
			},
		})
		return "application/cloudevents+json; charset=utf-8", body, err
	}
	tags := e.Tags
	if len(tags) == 0 {
		tags = []string{""}
	}
	var all envelope
	for i, tag := range tags { // each has room for one
		n := notification{ID: e.ID, Timestamp: e.Time, Action: e.Action}
		if i > 0 {
			n.ID = rand.Text()
		}
		n.Target.MediaType, n.Target.SizeBytes, n.Target.LengthBytes = e.MediaType, e.SizeBytes, e.SizeBytes
		n.Target.Digest, n.Target.Repository, n.Target.FromRepository = e.Digest, e.Repository, e.From
		n.Target.URL, n.Target.Tag = e.URL, tag
		n.Request.ID, n.Request.Addr, n.Request.Host, n.Request.Method, n.Request.Agent = e.ID, e.Client, e.Host, e.Method, e.Agent
		n.Actor.Name, n.Source.Addr = e.User, strings.TrimPrefix(source, "//")
		all.Events = append(all.Events, n)
	}
	body, err = json.Marshal(all)
	return "application/vnd.docker.distribution.events.v1+json", body, err
}
