package service

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution"
	"github.com/tare-oci/tare/distribution/server"
)

// slogLine is the line of a request as slog writes it.
func slogLine(format string, seen *server.Observation) string {
	var out bytes.Buffer
	record := slog.NewRecord(seen.Ended, slog.LevelInfo, "request", 0)
	record.AddAttrs(
		slog.String("method", seen.Method), slog.String("path", seen.URL.Path), slog.Int("status", seen.Status),
		slog.Int64("sent", seen.SentBytes), slog.Int64("received", seen.ReadBytes), slog.Float64("seconds", float64(seen.Took.Microseconds())/1e6),
		slog.String("client", clientOf(seen)), slog.String("agent", seen.UserAgent()))
	for _, optional := range [...]struct{ name, value string }{{"user", seen.User}, {"repository", seen.Name}, {"digest", string(seen.Digest)}} {
		if optional.value != "" {
			record.AddAttrs(slog.String(optional.name, optional.value))
		}
	}
	newLogger(format, &out).Handler().Handle(context.Background(), record)
	return out.String()
}

func observation(agent, user string, took time.Duration) *server.Observation {
	r := httptest.NewRequest("GET", "/v2/team/app/manifests/v1", nil)
	r.Header.Set("User-Agent", agent)
	ended := time.Date(2026, 11, 29, 23, 4, 5, 60_700_000, time.FixedZone("", 3600))
	return &server.Observation{
		Request: r, Endpoint: distribution.Endpoint{Route: distribution.RouteManifest, Name: "team/app", Argument: "v1"},
		User: user, Status: 200, SentBytes: 473, Took: took, Ended: ended, Digest: digest.FromString("x"),
	}
}

// TestRequestLine: the lines are those that slog would write.
func TestRequestLine(t *testing.T) {
	for _, agent := range []string{"", "crane/v0.20.6 go-containerregistry", "a=b", `"quoted"`, "docker/28", "tab\there", "line\nfeed", "\x1b[31m"} {
		for _, took := range []time.Duration{0, time.Microsecond, 123 * time.Microsecond, 15 * time.Millisecond, time.Hour} {
			seen := observation(agent, "alice", took)
			for _, format := range []string{"text", formatJSON} {
				got, want := string(appendRequest(nil, format == formatJSON, seen)), slogLine(format, seen)
				if got != want {
					t.Errorf("got  %swant %s", got, want)
				}
			}
		}
	}
}

// FuzzRequestLine: whatever clients send is one line, and JSON says the same.
func FuzzRequestLine(f *testing.F) {
	f.Add("docker", "alice")
	f.Add("é\u2028 <&>\\", "\xff")
	f.Fuzz(func(t *testing.T, agent, user string) {
		seen := observation(agent, user, time.Second)
		text := string(appendRequest(nil, false, seen))
		if strings.Count(text, "\n") != 1 || strings.ContainsFunc(text[:len(text)-1], func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%q", text)
		}
		var got, want map[string]any
		if err := json.Unmarshal(appendRequest(nil, true, seen), &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(slogLine(formatJSON, seen)), &want); err != nil {
			t.Fatal(err)
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %q, want %q", name, got[name], value)
			}
		}
	})
}
