package server

import (
	"context"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution"
)

// clientAddr is where a request comes from. What a proxy that is trusted says of
// that counts (X-Forwarded-For), and what a proxy that it trusts says, and so on;
// what stands before the first one that is not is anybody's word.
func clientAddr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	connection, _ := netip.ParseAddrPort(r.RemoteAddr) // else nobody's, and all of those are one
	addr := connection.Addr().Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && covers(trusted, addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap().WithZone("")
	}
	return addr
}

// ClientAddr is where a request comes from, beyond the proxies that are trusted. It
// is not valid where nobody wants to know more than the connection's address.
func (g *Registry) ClientAddr(r *http.Request) netip.Addr {
	if g.opts.Limit == nil && len(g.opts.TrustedProxies) == 0 {
		return netip.Addr{}
	}
	return clientAddr(r, g.opts.TrustedProxies)
}

func covers(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// neighbours are the addresses that count as one client: who has an address of
// IPv6 has the other 2⁶⁴ of its network, too.
func neighbours(addr netip.Addr) string {
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// guarded asks the Guard, and then whether the client has asked for too much.
func (g *Registry) guarded(q *request) error {
	limit := g.opts.Limit
	if limit == nil {
		return g.guard(q)
	}
	client, wait, err := g.account(q.Request, q.client, func() (string, error) {
		err := g.guard(q)
		return q.grant.User, err
	})
	if wait > 0 {
		return q.tooMany(wait)
	}
	if limit.PacesBytes() {
		q.body.pieceBytes = limit.PieceBytes()
		q.body.pace = func(n int64) { pause(q.Context(), limit.Pace(client, n)) }
	}
	return err
}

// account finds whose account a request is on, and whether there is anything left on
// it: if not, wait says for how long. A client is a user, or an address where nobody
// has signed in. Who tries to sign in and cannot has an account of his own for that,
// which is looked at before ask is called: to compare passwords is work.
func (g *Registry) account(r *http.Request, addr netip.Addr, ask func() (user string, err error)) (client string, wait time.Duration, err error) {
	address := neighbours(addr)
	failures := "failures " + address
	tries := r.Header.Get("Authorization") != ""
	if tries {
		if wait := g.opts.Limit.Blocked(failures); wait > 0 {
			return failures, wait, nil
		}
	}
	user, err := ask()
	client = "address " + address
	switch {
	case user != "":
		client = "user " + user
	case tries && err != nil:
		client = failures
	}
	return client, g.opts.Limit.Admit(client), err
}

// Admit is for what is served beside the API, to the same users under the same
// limits: it asks the Guard, and counts the request. Where wait is not zero, the
// client has to come again after that.
func (g *Registry) Admit(r *http.Request, need []Access) (grant Grant, wait time.Duration, err error) {
	ask := func() (string, error) {
		if g.opts.Guard != nil {
			grant, err = g.opts.Guard.Allow(r, need)
		}
		return grant.User, err
	}
	if g.opts.Limit == nil {
		_, err = ask()
		return grant, 0, err
	}
	_, wait, err = g.account(r, g.ClientAddr(r), ask)
	return grant, wait, err
}

func pause(ctx context.Context, wait time.Duration) {
	if wait <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}

// tooMany says when to come again.
func (q *request) tooMany(wait time.Duration) error {
	q.w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	q.w.Header().Del("Www-Authenticate")
	return plainError(distribution.CodeTooManyRequests)
}
