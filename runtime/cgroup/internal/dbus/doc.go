// Package dbus speaks as much of D-Bus as asking systemd for a container's cgroup takes (D-Bus Specification 0.43): method calls and their
// replies, and waiting for signals, over a unix socket, without file descriptors. Package cgroup's systemd driver, for cgroupsPath of
// runtime-spec config-linux.md, is its only user.
//
//	┌───────┬──────┬───────┬─────────┬────────┬────────┬───────────────────┬──────────┬──────┐
//	│ order │ type │ flags │ version │ length │ serial │ a(yv): the header │ to 8     │ body │
//	│ 'l'   │ 1…4  │       │ 1       │ of body│        │ path, member, …   │ bytes    │      │
//	└───────┴──────┴───────┴─────────┴────────┴────────┴───────────────────┴──────────┴──────┘
//
// Values are Go's by signature: y byte, b bool, n q i u x t the integers of that size, d float64, s o g string, a and ( []any, v Variant.
package dbus
