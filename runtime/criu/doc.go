// Package criu asks CRIU (https://criu.org) to save processes to files and to
// bring them back: what lies behind the checkpoint and restore verbs, which are
// runc's and not the Runtime Spec's.
//
// "criu swrk 3" reads one request from the socket on its descriptor 3 and answers
// on it. Before the answer come notices, at points where the caller may want to do
// something, and each waits for its own answer:
//
//	request: dump ────────▶
//	         ◀──────── notice: network-lock
//	goes on ──────────────▶
//	         ◀──────── notice: post-dump
//	goes on ──────────────▶
//	         ◀──────── answer: success
//
// The messages are Protocol Buffers (CRIU's images/rpc.proto). They use so little of
// that format that its encoding is a page here (wire.go), which spares
// tare-runtime a library half its own size.
package criu
