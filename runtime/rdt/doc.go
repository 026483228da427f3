// Package rdt gives containers a share of caches and memory bandwidth through
// the kernel's resctrl file system: runtime-spec 1.3.0, config-linux.md,
// "IntelRdt" (Linux 4.10, Documentation/filesystems/resctrl.rst).
//
//	/sys/fs/resctrl/              the default class
//	    schemata  tasks           its shares; the processes in it
//	    mon_groups/ID/tasks       processes that are measured by themselves
//	    CLOSID/ …                 another class, the same inside
//	    info/last_cmd_status      what was wrong with the last write
//
// Nothing here is touched unless a configuration asks for it.
package rdt
