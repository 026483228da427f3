// Package cgroup makes, limits, joins, watches and removes a container's cgroups (runtime-spec config-linux.md, "Control groups") on version 1,
// version 2 and systemd's hybrid layout of the two, by itself or through systemd, behind one interface.
//
// A container has one cgroup per mounted hierarchy:
//
//	/sys/fs/cgroup/memory/docker/ID      v1, hybrid: per controller; the child joins by writing "0" to tasks
//	/sys/fs/cgroup/systemd/docker/ID     v1, hybrid: named, no controller
//	/sys/fs/cgroup/unified/docker/ID     hybrid: joined at birth; limits of controllers that version 1 does not have
//	/sys/fs/cgroup/docker/ID             v2: joined at birth (clone3 with CLONE_INTO_CGROUP)
//
// All limits are in place before a process is. What a limit is called in either version is in one table (controls); what cannot be had here is a
// *spec.FieldError. With systemd the container's process comes first and waits, as a scope needs one:
//
//	StartTransientUnit(PIDs, limits) ─▶ wait for the job ─▶ our files ─▶ the process goes on
package cgroup
