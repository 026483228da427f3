// Package seccomp compiles the seccomp section of config.json
// (runtime-spec 1.3.0 config-linux.md, "Seccomp") to the classic BPF program
// that seccomp(2) takes. It is pure Go and makes no system call: loading the
// filter is a step of the container's own program.
//
// What a profile means is what libseccomp and runc make of it, since that is
// what profiles are written against:
//
//   - The native architecture is always filtered; so are the listed ones that a
//     native kernel can run. Calls through any other ABI kill the thread.
//   - Rules whose action is the default action are void. A rule without
//     arguments beats all rules with arguments for the same call; of two
//     without, the first one counts. Among rules with arguments see rule.go.
//   - Names that an architecture does not have are passed over, so that one
//     profile fits many kernels and machines.
//   - Where the default refuses, a call newer than every call the profile names
//     gets ENOSYS. A C library tries new calls first and falls back on ENOSYS;
//     an EPERM from a profile older than the call would break it
//     (clone3 and faccessat2 did in 2021).
//
// The filter looks like this, built back to front so that every jump is
// forward and its distance known:
//
//	load arch ── native? ──▶ load nr ─▶ binary tree over nr ─▶ verdict
//	     └────── other?  ──▶ load nr ─▶ binary tree over nr ─▶ verdict
//	     └────── kill
//
// A verdict is an action, or a chain of comparisons on arguments that ends in
// the default action. The trees compare the architecture and the number only, so that
// the kernel (since 5.11) can see at load time which calls are always
// allowed, and skips the filter for those.
package seccomp
