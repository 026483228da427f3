// Package clients puts the clients that people have in front of tare serve: each
// pushes an image, reads it back and does what else it is known for (Distribution
// Spec 1.1, "Pull", "Push", "Content Discovery" and "Content Management"), once on
// plain HTTP, once with TLS and a password.
//
// A client is one script, to be read from top to bottom. Docker, containerd and
// Kubernetes' CRI are asked in test/engines, where they run already.
package clients
