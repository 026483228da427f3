package config

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/tare-oci/tare/distribution/server/limit"
)

// Rate bounds what each client may ask for in a time.
type Rate struct {
	Requests int  `toml:"requests"` // a second; 0 is no bound
	Burst    int  `toml:"burst"`    // 0 is ten seconds' worth
	Bytes    Size `toml:"bytes"`    // a second; 0 is no bound
}

// minRateBytes lets a client get anything at all before it gives up.
const minRateBytes = 16 << 10

func (c *Config) checkRate() error {
	if _, err := c.Proxies(); err != nil {
		return err
	}
	switch r := c.Rate; {
	case r.Requests < 0 || r.Requests > 1_000_000:
		return errors.New("rate.requests: must be from 0 to 1000000")
	case r.Burst < 0 || r.Burst > 10_000_000:
		return errors.New("rate.burst: must be from 0 to 10000000")
	case r.Burst > 0 && r.Requests == 0:
		return errors.New("rate.burst: needs rate.requests")
	case r.Bytes > 0 && r.Bytes < minRateBytes:
		return fmt.Errorf("rate.bytes: must be at least %s", Size(minRateBytes))
	}
	return nil
}

// Proxies are those whose word on clients' addresses counts.
func (c *Config) Proxies() (trusted []netip.Prefix, err error) {
	for _, text := range c.HTTP.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			prefix, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("http.trusted-proxies: %q is neither an address nor a network such as 10.0.0.0/8", text)
		}
		trusted = append(trusted, prefix.Masked())
	}
	return trusted, nil
}

// Limiter is nil if nothing is bounded.
func (c *Config) Limiter() *limit.Limiter {
	const burstSeconds = 10
	r := c.Rate
	if r.Requests == 0 && r.Bytes == 0 {
		return nil
	}
	if r.Burst == 0 {
		r.Burst = burstSeconds * r.Requests
	}
	return limit.New(limit.Options{Requests: r.Requests, Burst: r.Burst, BytesPerSecond: int64(r.Bytes)})
}
