// Package engines puts tare-runtime under the engines that people have, as Debian
// packages them: Podman, containerd by ctr, Docker and Buildah. (What a kubelet
// asks of containerd is in cri, a module of its own.) Each is one file, to be read
// from top to bottom, that says what the engine's user sees.
//
// The Runtime Spec says nothing of command lines; runtime.md's operations are
// tested here as far as engines depend on them, and config.md's and
// config-linux.md's fields in the mixtures that engines write.
//
// Every test is in namespaces of its own (testenv.PrivateMachine), where it starts
// its daemons and where they end. With TARE_TEST_RUNTIME=/usr/sbin/runc the same is
// asked of runc: a battery has to pass there before a failure is ours.
package engines
