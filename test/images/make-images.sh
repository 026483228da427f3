#!/bin/bash
# make-images.sh: build the images that tests and benchmarks run on, as OCI image
# layouts, and print the directory that holds them. They are built once: the result
# is kept in ${XDG_CACHE_HOME:-~/.cache}/tare-test/images under a key made from the
# text of this file, so a change here makes new ones.
#
#   small      one gzip layer: static busybox and a link for each applet
#   medium     three gzip layers: a minimal Debian; what "apt-get install" of compilers
#              and tools adds to it; and edge cases made by hand (whiteouts, an opaque
#              directory, hard links within and across layers, xattrs, a file
#              capability, devices, a fifo, symlink loops, long and non-UTF-8 names, odd
#              modes, a sparse file, big ids, times before 1970 and in nanoseconds).
#              The tag "base" is the first layer alone.
#   zstd       the tar streams of medium in zstd layers
#   manyfiles  one gzip layer of about 30,000 small files (Debian source packages)
#   multiarch  an index of busybox for seven architectures, with an attestation of
#              platform unknown/unknown as BuildKit adds it; the tag "nested" is an
#              index in an index, the tag "amd64" a manifest
#
# Every file of a layout is written here, by sha256sum and jq, so that no OCI tool
# decides what an image looks like. Not the same on every machine: the state of the
# Debian mirror decides on versions, and the edge cases keep their time of building.
#
# Needs root, a Debian or Ubuntu host with the packages attr, busybox-static,
# debian-archive-keyring, debootstrap, dpkg-dev, jq, libcap2-bin, zstd, and a Debian
# mirror: the one apt uses here for the suite if any, else Debian's own, else $MIRROR.
# It takes about three minutes, and a gigabyte in $TMPDIR meanwhile.
set -euo pipefail
umask 022
exec 3>&1 1>&2 </dev/null            # only the directory goes to stdout
export LC_ALL=C.UTF-8 TZ=UTC PATH=$PATH:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive
suite=bookworm                       # package names below are of this suite
epoch=1750000000
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
media=application/vnd.oci.image
die() { echo "make-images: $*"; exit 1; }

# ---- image layouts -------------------------------------------------------------------
# Functions that make a descriptor print it. Each image has its own work directory.
new_layout() { mkdir -p "$1/blobs/sha256"; echo '{"imageLayoutVersion":"1.0.0"}' >"$1/oci-layout"; }

digest() { echo "sha256:$(sha256sum | cut -d' ' -f1)"; }

# put LAYOUT TYPE <CONTENT: store a blob
put() {
	local tmp d; tmp=$(mktemp "$1/blobs/.new.XXXXXX"); cat >"$tmp"; d=$(digest <"$tmp")
	jq -nc --arg m "$2" --arg d "$d" --argjson s "$(stat -c %s "$tmp")" '{mediaType: $m, digest: $d, size: $s}'
	chmod 644 "$tmp"; mv "$tmp" "$1/blobs/sha256/${d#*:}"
}

# image LAYOUT PLATFORM gzip|zstd TAR...: an image of these layers. PLATFORM is
# ARCH or ARCH/VARIANT
image() {
	local layout=$1 arch=${2%%/*} variant='' how=$3 layers='[]' ids='[]' history='[]' n=0 tar d compress
	[[ $2 != */* ]] || variant=${2#*/}; shift 3
	case $how in gzip) compress=(gzip -6 -n -c) ;; zstd) compress=(zstd -q -3 --single-thread -c) ;; esac
	for tar; do
		n=$((n + 1))
		ids=$(jq -c --arg d "$(digest <"$tar")" '. + [$d]' <<<"$ids")
		d=$("${compress[@]}" "$tar" | put "$layout" "$media.layer.v1.tar+$how")
		layers=$(jq -c --argjson d "$d" '. + [$d]' <<<"$layers")
		history=$(jq -c --arg c "$created" --arg n "$n" \
			'. + [{created: $c, created_by: ("/bin/sh -c #(make-images) layer " + $n)}]' <<<"$history")
	done
	d=$(jq -nc --arg c "$created" --arg a "$arch" --arg v "$variant" --argjson ids "$ids" --argjson h "$history" '{
		created: $c, author: "make-images.sh", architecture: $a, os: "linux",
		config: {
			Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
			Cmd: ["/bin/sh"], WorkingDir: "/", Labels: {"org.example.recipe": "make-images.sh"},
			ExposedPorts: {"8080/tcp": {}}, Volumes: {"/data": {}}
		},
		rootfs: {type: "layers", diff_ids: $ids},
		history: ($h + [{created: $c, created_by: "CMD [\"/bin/sh\"]", empty_layer: true}])
	} + if $v == "" then {} else {variant: $v} end' | put "$layout" $media.config.v1+json)
	jq -nc --argjson c "$d" --argjson l "$layers" --arg m $media.manifest.v1+json '{
		schemaVersion: 2, mediaType: $m, config: $c, layers: $l,
		annotations: {"org.opencontainers.image.source": "make-images.sh"}
	}' | put "$layout" $media.manifest.v1+json |
		jq -c --arg a "$arch" --arg v "$variant" \
			'.platform = {architecture: $a, os: "linux"} + if $v == "" then {} else {variant: $v} end'
}

# index DESCRIPTOR...: print an index of these
index() {
	printf '%s\n' "$@" | jq -sc --arg m $media.index.v1+json '{schemaVersion: 2, mediaType: $m, manifests: .}'
}

# tags LAYOUT TAG DESCRIPTOR [TAG DESCRIPTOR...]: write index.json
tags() {
	local layout=$1 entries=(); shift
	while [ $# -gt 0 ]; do
		entries+=("$(jq -c --arg t "$1" '.annotations["org.opencontainers.image.ref.name"] = $t' <<<"$2")"); shift 2
	done
	index "${entries[@]}" >"$layout/index.json"
}

# pack DIR TAR [OPTION...]: sorted names, numeric owners, all xattrs, no access times
pack() {
	local dir=$1 out=$2; shift 2
	tar --sort=name --numeric-owner --format=posix --pax-option=delete=atime,delete=ctime \
		--xattrs '--xattrs-include=*' '--xattrs-exclude=trusted.overlay.*' "$@" -C "$dir" -cf "$out" .
}
clamp=("--mtime=@$epoch" --clamp-mtime)

# ---- Debian packages -----------------------------------------------------------------
# download ARCH DIR PACKAGE...: fetch packages by an apt with a state of its own, so
# that nothing of the host's apt and dpkg changes
download() {
	local arch=$1 dir=$2 apt=$work/apt-$1; shift 2
	mkdir -p "$apt"/state/lists/partial "$apt"/cache/archives/partial "$apt"/etc/{apt.conf.d,preferences.d} "$dir"
	echo "deb [signed-by=$keyring] $mirror $suite main" >"$apt/etc/sources.list"
	touch "$apt/status"
	local get=(apt-get -q -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Dir::Etc="$apt/etc"
		-o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root)
	[ -e "$apt/updated" ] || { "${get[@]}" update; touch "$apt/updated"; }
	(cd "$dir" && "${get[@]}" download "$@")
}

# busybox ARCH TAR: a root file system with busybox and nothing else
busybox_tar() {
	local r=$work/busybox-$1 p=$work/busybox-$1.deb applet
	mkdir -p "$r"/{bin,etc,tmp,root,proc,sys,dev,usr/share/doc} "$p"
	chmod 1777 "$r/tmp"
	download "$1" "$p" busybox-static
	dpkg-deb --fsys-tarfile "$p"/busybox-static_*.deb | tar -C "$r" -xf - ./bin/busybox ./usr/share/doc/busybox-static/copyright
	for applet in $(busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$r/bin/$applet"
	done
	echo 'root:x:0:0:root:/root:/bin/sh' >"$r/etc/passwd"
	echo 'root:x:0:' >"$r/etc/group"
	echo "$1" >"$r/etc/arch"
	pack "$r" "$2" "${clamp[@]}"
	rm -rf "$r" "$p"
}

# ---- the images ----------------------------------------------------------------------
make_small() {
	new_layout "$new/small"
	busybox_tar amd64 "$work/small.tar"
	tags "$new/small" latest "$(image "$new/small" amd64 gzip "$work/small.tar")"
}

make_manyfiles() {
	local r=$work/many deb
	new_layout "$new/manyfiles"
	mkdir "$r"
	download amd64 "$work/many.deb" libboost1.74-dev golang-1.19-src
	for deb in "$work"/many.deb/*; do dpkg-deb -x "$deb" "$r"; done
	pack "$r" "$work/many.tar" "${clamp[@]}"
	rm -rf "$r"
	tags "$new/manyfiles" latest "$(image "$new/manyfiles" amd64 gzip "$work/many.tar")"
}

make_multiarch() {
	local l=$new/multiarch p all=() statement config top
	new_layout "$l"
	for p in amd64=amd64 arm64=arm64/v8 armhf=arm/v7 armel=arm/v5 i386=386 ppc64el=ppc64le s390x=s390x; do
		busybox_tar "${p%%=*}" "$work/arch.tar"
		all+=("$(image "$l" "${p#*=}" gzip "$work/arch.tar")")
	done
	statement=$(echo '{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","subject":[],"predicate":{}}' |
		put "$l" application/vnd.in-toto+json)
	config=$(jq -c '{architecture: "unknown", os: "unknown", config: {}, rootfs: {type: "layers", diff_ids: [.digest]}}' <<<"$statement" |
		put "$l" $media.config.v1+json)
	all+=("$(jq -nc --argjson c "$config" --argjson s "$statement" --arg m $media.manifest.v1+json '{
		schemaVersion: 2, mediaType: $m, config: $c,
		layers: [$s + {annotations: {"in-toto.io/predicate-type": "https://spdx.dev/Document"}}]
	}' | put "$l" $media.manifest.v1+json | jq -c --argjson of "${all[0]}" '
		.annotations = {"vnd.docker.reference.digest": $of.digest, "vnd.docker.reference.type": "attestation-manifest"} |
		.platform = {architecture: "unknown", os: "unknown"}')")
	top=$(index "${all[@]}" | put "$l" $media.index.v1+json)
	tags "$l" latest "$top" nested "$(index "$top" | put "$l" $media.index.v1+json)" amd64 "${all[0]}"
}

make_debian() {
	local tars=("$work/base.tar" "$work/tools.tar" "$work/edge.tar")
	base_tar "${tars[0]}"
	tools_tar "${tars[1]}"
	edge_tar "${tars[2]}"
	new_layout "$new/medium"
	tags "$new/medium" latest "$(image "$new/medium" amd64 gzip "${tars[@]}")" \
		base "$(image "$new/medium" amd64 gzip "${tars[0]}")"
	new_layout "$new/zstd"
	tags "$new/zstd" latest "$(image "$new/zstd" amd64 zstd "${tars[@]}")"
}

base_tar() {
	local r=$work/base
	debootstrap --variant=minbase "$suite" "$r" "$mirror" >"$work/log" || { tail -n 20 "$work/log"; return 1; }
	rm -rf "$r"/var/cache/apt/archives/*.deb "$r"/var/log/{bootstrap,dpkg,alternatives}.log \
		"$r"/var/cache/ldconfig/aux-cache "$r"/debootstrap "$r"/dev/* "$r"/proc/* "$r"/sys/*
	pack "$r" "$1" "${clamp[@]}"
}

# What an overlay collects while packages are installed is the second layer. The
# overlay and the chroot's /proc are in a mount namespace that ends with the work.
tools_tar() {
	local proxy=''
	mkdir -p "$work"/{upper/etc,ovl,merged}
	[ ! -e /etc/resolv.conf ] || cp -L /etc/resolv.conf "$work/upper/etc/"
	eval "$(apt-config shell proxy Acquire::http::Proxy)"
	W=$work P=${proxy:-} unshare -m --propagation private bash -euc '
		mount -t overlay overlay -o "lowerdir=$W/base,upperdir=$W/upper,workdir=$W/ovl" "$W/merged"
		mount -t proc proc "$W/merged/proc"
		P=$P chroot "$W/merged" sh -euc '\''
			get() { apt-get -q ${P:+-o Acquire::http::Proxy="$P"} "$@"; }
			printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
			get update
			get install -y --no-install-recommends ca-certificates curl git python3 perl vim-tiny less \
				procps iproute2 iputils-ping openssh-client build-essential
			get clean
			rm -rf /var/lib/apt/lists/* /var/log/* /usr/sbin/policy-rc.d
			rm -rf /usr/share/doc/bash /usr/share/locale/de /usr/share/zoneinfo/right
			rm -rf /usr/share/locale/fr; mkdir -p /usr/share/locale/fr; echo new >/usr/share/locale/fr/only
		'\''' >"$work/log" 2>&1 || { tail -n 20 "$work/log"; return 1; }
	whiteouts "$work/upper"
	pack "$work/upper" "$1" "${clamp[@]}"
}

# whiteouts DIR: turn overlayfs's marks of removal into those of the Image Spec
whiteouts() {
	local f
	find "$1" -type c -print0 | while IFS= read -r -d '' f; do
		[ "$(stat -c %t:%T "$f")" = 0:0 ] || continue
		rm "$f"
		: >"${f%/*}/.wh.${f##*/}"
	done
	find "$1" -mindepth 1 -type d -print0 | while IFS= read -r -d '' f; do
		[ "$(getfattr --absolute-names --only-values -n trusted.overlay.opaque "$f" 2>/dev/null)" != y ] || : >"$f/.wh..wh..opq"
	done
}

edge_tar() {
	mkdir "$work/edge"
	(cd "$work/edge" && edge_cases)
	pack "$work/edge" "$1"       # without clamp: times before 1970 and nanoseconds stay
}

edge_cases() {
	mkdir -p usr/share/{doc,locale,lintian} etc dev var/cache data opt/edge/{dir,empty,sticky,setgid}
	: >usr/share/doc/.wh.adduser        # a directory of the first layer
	: >etc/.wh.issue.net                # a file of the first layer
	: >usr/share/.wh.doc-base           # nothing below has that name: allowed
	: >usr/share/lintian/.wh..wh..opq
	echo kept >usr/share/lintian/kept-after-opaque
	cp "$work/base/bin/true" opt/edge/capped
	mknod -m 0666 dev/null c 1 3
	cd opt/edge
	echo one >hl-a; ln hl-a hl-b; ln hl-a dir/hl-c
	ln -s hl-a sym-rel; ln sym-rel sym-hardlink
	ln -s /etc/passwd sym-abs; ln -s ../../../../../etc/shadow sym-up
	ln -s loop2 loop1; ln -s loop1 loop2; ln -s nowhere dangling
	ln -s /opt/edge/dir dirlink; ln -s /usr/share/lintian abs-dir
	mknod null c 1 3; mknod loop0 b 7 0; mkfifo -m 0640 fifo
	chmod 1777 sticky; chmod 2775 setgid; chmod 0711 empty; chmod 0555 dir
	echo su >suid; chmod 4755 suid
	echo none >mode000; chmod 0000 mode000
	echo x >xattr; setfattr -n user.test -v value xattr; setfattr -n user.bin -v 0x00ff0a3d xattr
	setfattr -n trusted.demo -v t xattr || true        # where the file system has them
	setfattr -n user.dirattr -v d empty
	setcap cap_net_raw+ep capped
	echo u >$'n\303\244me with sp\303\244ce'; echo l >$'latin1-\344'; echo n >$'new\nline'
	echo = >'pax=name'; echo b >'back\slash'
	local long; long=$(printf 'L%.0s' {1..200})
	mkdir -p "$long/$long"; echo deep >"$long/$long/$long"; ln -s "$long/$long/$long" longlink
	truncate -s 64M sparse; printf end | dd of=sparse bs=1 seek=67108000 conv=notrunc status=none
	echo big >bigid; chown 2147483000:2147483001 bigid
	: >zero
	touch -d 1969-12-31T00:00:00Z pre1970; touch -d '2001-02-03 04:05:06.123456789' nsec
}

# ---- once ----------------------------------------------------------------------------
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/tare-test/images
images=$cache/$(sha256sum <"$0" | cut -c1-12)
if [ ! -d "$images" ]; then
	[ "$(id -u)" = 0 ] || die "the images are not built yet: run once as root"
	for tool in busybox debootstrap dpkg-deb getfattr setcap jq zstd; do
		command -v $tool >/dev/null || die "no $tool: see the packages at the top of $0"
	done
	[ -e $keyring ] || die "no $keyring (apt-get install debian-archive-keyring)"
	mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" | head -n1)}
	mirror=${mirror:-http://deb.debian.org/debian}
	mkdir -p "$cache"
	exec 9>"$cache/lock"; flock 9
fi
if [ ! -d "$images" ]; then          # nobody built them while we waited
	echo "make-images: building, some minutes"
	new=$cache/new work=$(mktemp -d "${TMPDIR:-/tmp}/tare-images.XXXXXX")
	other=
	trap '[ -z "$other" ] || kill $other 2>/dev/null || true; rm -rf "$work" "$new"' EXIT
	trap 'exit 130' INT; trap 'exit 143' TERM
	rm -rf "$new"; mkdir "$new"
	(make_small; make_manyfiles; make_multiarch) >"$work/log2" 2>&1 & other=$!
	make_debian
	wait $other || { other=; tail -n 20 "$work/log2"; die "building failed, see above"; }
	other=
	mv "$new" "$images"
fi
echo "$images" >&3
