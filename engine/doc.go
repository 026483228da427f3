// Package engine joins the image store, the registry client and the runtime
// into what people do every day: pull, unpack, run, remove. It is the only
// library that knows all three; it implements no specification but for the
// bundle (runtime-spec bundle.md) that it makes of an image (package bundle).
//
//	registry ──Pull──▶ blobs ──layer.Apply──▶ snapshots ──overlayfs──▶ rootfs ┐
//	                     │                                                    ├─▶ container
//	                     └── image config ──bundle.Spec──▶ config.json ───────┘
//
// Everything is kept in two directories:
//
//	ROOT/lease.lock                  shared: somebody relies on snapshots; exclusive: GC
//	ROOT/images/                     an OCI image layout (package layout): blobs and names
//	ROOT/snapshots/ALGORITHM/HEX/    a layer on those below it, by ChainID (image-spec config.md)
//	         fs/  or  opaque/        its files, as a lower directory of overlayfs; opaque hides all below
//	ROOT/snapshots/new/RANDOM/       one that is being made
//	ROOT/containers/ID/              a container: container.json, and what it writes: upper/, work/
//	RUNROOT/containers/ID/           its bundle: config.json, rootfs/ (the mount point), hosts, hostname, resolv.conf
//	RUNROOT/runtime/ID/              the runtime's state of it (package lifecycle)
//
// No daemon watches over these, and whoever works here may be killed at any
// moment. So the maker of a directory in snapshots/new or in containers holds a
// lock (flock) on it as long as it lives, and who comes later removes what no
// one holds (owned). Names that mean something, of blobs and of snapshots, are
// given by rename once what they stand for is whole and verified.
package engine
