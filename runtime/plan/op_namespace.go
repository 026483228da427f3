package plan

import (
	"fmt"
	"strings"

	"github.com/tare-oci/tare/runtime/linux"
	"github.com/tare-oci/tare/runtime/program"
)

// What a process says to its parent over the SyncPipe, besides what has a length
// of its own: failure reports, PIDSize and ListenerSize. Each is a message of one byte.
const (
	SaysReady = 'r' // the container is made: ready
	SaysMaps  = 'u' // the new user namespace waits for its maps: awaitMaps
	SaysBegun = 'b' // the process waits to be moved to its control groups: awaitCgroup
	SaysHooks = 'h' // the parent's hooks have to run: parentHooks
	// SaysDevices: the network namespace waits for its devices, awaitDevices.
	SaysDevices = 'n'
)

// unshare makes new namespaces that could not be made when the process was.
type unshare struct{ Flags uint64 }

func (o unshare) String() string {
	return "unshare " + strings.Join(namespaceNames(o.Flags), " ")
}

func (o unshare) lower(l *lowering) { l.b.Call("unshare", program.Const(o.Flags)) }

// setns joins namespaces that exist: the one that a descriptor of
// /proc/PID/ns is of, or several of the process that a pidfd is of. A joined
// pid namespace is that of children only: fork has to follow.
type setns struct {
	NS    FD
	Flags uint64
}

func (o setns) String() string {
	return fmt.Sprintf("setns %v %s", o.NS, strings.Join(namespaceNames(o.Flags), " "))
}

func (o setns) lower(l *lowering) {
	l.b.Call("setns", l.fd(o.NS), program.Const(o.Flags))
	l.close(l.fd(o.NS))
}

// awaitMaps waits until the parent has written the id maps of the process's new
// user namespace.
type awaitMaps struct{ Sync FD }

func (o awaitMaps) String() string { return fmt.Sprintf("wait for id maps from %v", o.Sync) }

func (o awaitMaps) lower(l *lowering) { l.ask(o.Sync, SaysMaps) }

// awaitDevices waits until the parent has moved network devices into the
// process's network namespace.
type awaitDevices struct{ Sync FD }

func (o awaitDevices) String() string { return fmt.Sprintf("wait for network devices from %v", o.Sync) }

func (o awaitDevices) lower(l *lowering) { l.ask(o.Sync, SaysDevices) }

// awaitCgroup waits until the parent has made the control groups. It says so
// where the parent waits for that, to move the process there.
type awaitCgroup struct {
	Sync FD
	Says bool
}

func (o awaitCgroup) String() string { return fmt.Sprintf("wait for control groups from %v", o.Sync) }

func (o awaitCgroup) lower(l *lowering) {
	if o.Says {
		l.ask(o.Sync, SaysBegun)
		return
	}
	l.await(o.Sync)
}

// ask says something to the parent and waits for its answer.
func (l *lowering) ask(sync FD, what rune) {
	l.b.Call("write", l.fd(sync), l.str(string(what)), program.Const(1))
	l.await(sync)
}

// await waits until the parent lets the process go on. A parent that is gone
// answers with the end of the stream: then the process ends too, and nothing of
// a half-made container stays.
func (l *lowering) await(sync FD) {
	l.b.Call("read", l.fd(sync), l.b.Scratch(), program.Const(1)).OnZero(program.Exit)
}

// newTime makes a time namespace and enters it. unshare only makes it that of
// the next child, which leaves time to set its clocks (time_namespaces(7)).
type newTime struct {
	Self    FD     // the process's own directory in /proc
	Offsets string // what to write to timens_offsets
}

func (o newTime) String() string {
	text := "unshare time"
	if o.Offsets != "" {
		text += fmt.Sprintf(", offsets %q", o.Offsets)
	}
	return text + ", enter it"
}

func (o newTime) lower(l *lowering) {
	self := l.fd(o.Self)
	open := func(name string, flags uint64) program.Arg {
		return l.b.Call("openat", self, l.str(name), program.Const(flags|linux.O_CLOEXEC), program.Const(0)).Result()
	}
	l.b.Call("unshare", program.Const(linux.CLONE_NEWTIME))
	if o.Offsets != "" {
		offsets := open("timens_offsets", linux.O_WRONLY)
		l.b.Call("write", offsets, l.str(o.Offsets), program.Const(len(o.Offsets)))
		l.close(offsets)
	}
	ns := open("ns/time_for_children", linux.O_RDONLY)
	l.b.Call("setns", ns, program.Const(linux.CLONE_NEWTIME))
	l.close(ns)
	l.close(self)
}
