// Package foreground runs a container as a shell runs a command: its terminal
// or pipes are ours, the signals we get are its, and its exit status is what
// we return. It combines the operations of runtime.md in the Runtime Spec
// (create, start, wait, delete) for callers that stay.
package foreground
