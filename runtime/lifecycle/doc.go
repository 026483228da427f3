// Package lifecycle creates, starts, signals and deletes containers: the
// operations and states of runtime.md in the Runtime Spec 1.3.0.
//
// A container's process is a program compiled from its configuration (packages
// plan and program). This package is the parent's side of it: control groups,
// what the program is started with, state on disk, and waiting.
//
//	parent                                 child
//	compile the opening
//	reserve ROOT/ID, write state.json
//	make control groups                    (version 2, or with a user namespace)
//	fork ───────────────────────────────▶
//	compile                                namespaces
//	the program ────────────────────────▶  read it
//	id maps             ◀── asks for them  (a new user namespace)
//	wait                ◀────── pid, ends  (its child goes on, in a pid namespace it could not enter)
//	make control groups                    mounts, devices
//	go ─────────────────────────────────▶  join them (version 1)
//	write state.json (pid)
//	oom score, limits
//	prestart, createRuntime  ◀─── hooks?  (only where there are any)
//	go ─────────────────────────────────▶  createContainer hooks
//	                                       console, masks, pivot…
//	go ─────────────────────────────────▶  (read when ready)
//	              ◀──────────────── ready
//	pid file                               wait on ROOT/ID/start.sock
//	(create ends)
//
//	start: connect, write a byte ───────▶  startContainer hooks
//	                                       user, capabilities, seccomp, execve
//	              ◀── failure, or end of stream when execve has closed it
//	poststart hooks
//
// A process that needs nothing of the container is forked first of all, and one whose plan has
// no opening (plan.Opening: with a user namespace, for one) after all is compiled.
//
// create, start and delete hold a lock on the container's directory, so that they
// come one after the other; hooks that follow them run without it.
//
// A further process of a container (exec) is a program as well:
//
//	copy of config.json, compile
//	fork ───────────────────────────────▶  control groups, limits
//	                                       enter the container's namespaces
//	              ◀─────────── process id  fork; the first one ends
//	              ◀──────────────── ready  terminal, working directory
//	(go has been sent before) ──────────▶  user, capabilities, seccomp, execve
//	              ◀── failure, or end of stream when execve has closed it
//	pidfd, pid file
//
// Whatever dies on the way, the other end sees its socket close. All state of
// a container lies in one directory:
//
//	ROOT/ID/state.json   the record (Record)
//	ROOT/ID/config.json  the configuration as it was when the container was made
//	ROOT/ID/start.sock   exists while the container waits for start
//	ROOT/ID/notify/      what the container tells a service manager (sd_notify)
package lifecycle
