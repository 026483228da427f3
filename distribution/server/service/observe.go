package service

import (
	"io"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/metrics"
)

// observer logs and counts requests.
type observer struct {
	log       io.Writer // nil for none
	json      bool
	requests  *metrics.Counter
	durations *metrics.Histogram
	sent      *metrics.Counter
	received  *metrics.Counter
	buffers   sync.Pool // of *[]byte
}

func newObserver(set *metrics.Set, log io.Writer, asJSON bool) *observer {
	const ms = time.Millisecond
	o := &observer{
		log:      log,
		json:     asJSON,
		requests: set.Counter("tare_registry_requests_total", "Requests, by resource, method and status.", "resource", "method", "status"),
		durations: set.Histogram("tare_registry_request_duration_seconds", "From a request's header to the end of its answer, by resource and method.",
			[]time.Duration{ms / 4, ms, 5 * ms, 25 * ms, 100 * ms, 500 * ms, 2500 * ms, 10_000 * ms, 60_000 * ms}, "resource", "method"),
		sent:     set.Counter("tare_registry_sent_bytes_total", "Bytes of answers' bodies."),
		received: set.Counter("tare_registry_received_bytes_total", "Bytes of requests' bodies."),
	}
	o.buffers.New = func() any { return new([]byte) }
	return o
}

// methods bounds what a client can make a label of.
var methods = map[string]bool{"GET": true, "HEAD": true, "PUT": true, "POST": true, "PATCH": true, "DELETE": true}

// clientOf is the address and port of the connection, or the address that a proxy
// tells.
func clientOf(seen *server.Observation) string {
	if !seen.Client.IsValid() {
		return seen.RemoteAddr
	}
	if connection, err := netip.ParseAddrPort(seen.RemoteAddr); err == nil && connection.Addr().Unmap() == seen.Client {
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
	buffer := o.buffers.Get().(*[]byte)
	*buffer = appendRequest((*buffer)[:0], o.json, seen)
	o.log.Write(*buffer) // that the log is broken is nobody's to be told
	o.buffers.Put(buffer)
}
