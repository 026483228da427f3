package service

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/tare-oci/tare/distribution/remote"
	"github.com/tare-oci/tare/distribution/server/webhook"
)

// openWebhooks makes the endpoints that the configuration names, nil if there are
// none. Secrets are read again for each event, but have to be there now.
func (s *Service) openWebhooks() (*webhook.Hub, error) {
	endpoints := s.config.Endpoints()
	if len(endpoints) == 0 {
		return nil, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("webhooks: name of this machine: %w", err)
	}
	for i, c := range s.config.Webhook {
		e := &endpoints[i]
		e.Source = cmp.Or(e.Source, "//"+host)
		for file, read := range map[string]*func() (string, error){c.SecretFile: &e.Secret, c.BearerFile: &e.Bearer} {
			if file == "" {
				continue
			}
			if _, err := readSecret(file); err != nil {
				return nil, fmt.Errorf("webhook %d: %w", i+1, err)
			}
			*read = func() (string, error) { return readSecret(file) }
		}
		if c.CA != "" {
			if e.RootCAs, err = remote.LoadCAs(c.CA); err != nil {
				return nil, fmt.Errorf("webhook %d: %w", i+1, err)
			}
		}
	}
	events := s.metrics.Counter("tare_registry_webhook_events_total", "Events for webhooks, by the endpoint's host and what became of them.", "endpoint", "result")
	return webhook.New(webhook.Options{
		Endpoints: endpoints, Log: s.log,
		Count: func(endpoint, result string) { events.Add(1, endpoint, result) },
	})
}

// closeWebhooks sends what waits, for as long as requests may take to end.
func (s *Service) closeWebhooks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(s.config.HTTP.DrainTimeout))
	defer cancel()
	s.webhooks.Close(ctx)
}
