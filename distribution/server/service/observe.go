package service

import (
	"context"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/metrics"
)

// observer logs and counts requests.
type observer struct {
	log       slog.Handler // nil for none
	requests  *metrics.Counter
	durations *metrics.Histogram
	sent      *metrics.Counter
	received  *metrics.Counter
}

func newObserver(set *metrics.Set, log slog.Handler) *observer {
	const ms = time.Millisecond
	return &observer{
		log:      log,
		requests: set.Counter("tare_registry_requests_total", "Requests, by resource, method and status.", "resource", "method", "status"),
		durations: set.Histogram("tare_registry_request_duration_seconds", "From a request's header to the end of its answer, by resource and method.",
			[]time.Duration{ms / 4, ms, 5 * ms, 25 * ms, 100 * ms, 500 * ms, 2500 * ms, 10_000 * ms, 60_000 * ms}, "resource", "method"),
		sent:     set.Counter("tare_registry_sent_bytes_total", "Bytes of answers' bodies."),
		received: set.Counter("tare_registry_received_bytes_total", "Bytes of requests' bodies."),
	}
}

// methods bounds what a client can make a label of.
var methods = map[string]bool{"GET": true, "HEAD": true, "PUT": true, "POST": true, "PATCH": true, "DELETE": true}

// clientOf is the address and port of the connection, or the address that a proxy
// tells.
func clientOf(seen *server.Observation) string {
	connection, err := netip.ParseAddrPort(seen.RemoteAddr)
	if !seen.Client.IsValid() || err == nil && connection.Addr().Unmap() == seen.Client {
		return seen.RemoteAddr
	}
	return seen.Client.String()
}

func (o *observer) observe(seen *server.Observation) {
	resource, method := seen.Route.String(), seen.Method
	if !methods[method] {
		method = "other"
	}
	o.requests.Add(1, resource, method, strconv.Itoa(seen.Status))
	o.durations.Observe(seen.Took, resource, method)
	o.sent.Add(uint64(seen.SentBytes))
	o.received.Add(uint64(seen.ReadBytes))
	if o.log == nil {
		return
	}
	// Not through the Logger, which would look up where in the source this is.
	record := slog.NewRecord(time.Now(), slog.LevelInfo, "request", 0)
	record.AddAttrs(
		slog.String("method", seen.Method),
		slog.String("path", seen.URL.Path),
		slog.Int("status", seen.Status),
		slog.Int64("sent", seen.SentBytes),
		slog.Int64("received", seen.ReadBytes),
		slog.Float64("seconds", float64(seen.Took.Microseconds())/1e6),
		slog.String("client", clientOf(seen)),
		slog.String("agent", seen.UserAgent()),
	)
	for _, optional := range [...]struct{ name, value string }{{"user", seen.User}, {"repository", seen.Name}, {"digest", string(seen.Digest)}} {
		if optional.value != "" {
			record.AddAttrs(slog.String(optional.name, optional.value))
		}
	}
	o.log.Handle(context.Background(), record) // that the log is broken is nobody's to be told
}
