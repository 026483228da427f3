// Package netdev moves network interfaces of the host into a container's network
// namespace: runtime-spec 1.3.0, config-linux.md, "Network Devices".
//
// It speaks the few rtnetlink messages (rtnetlink(7)) that takes by itself. The
// library that others use for it would make the runtime larger by half a
// megabyte, and start with tables of all that it knows besides.
package netdev
