#!/bin/bash
# systemd.sh RUNTIME IMAGE SERVERS: Podman, of root and of an ordinary user, and Docker with
# the runtime in a machine of their own, in which systemd makes the control groups, of
# version 2, and root has all capabilities. IMAGE is an archive with the image "base",
# SERVERS a directory with Docker's programs. The machine is slow: one call asks for much.
set -u
runtime=$1 image=$2
PATH=$3/usr/bin:$3/usr/sbin:$PATH
dir=$(mktemp -d) bad=0
chmod 711 "$dir"
fail() { echo "FAIL: $*"; bad=1; }
part() { echo "$SECONDS s: $*"; }
is() {                                      # is WANT COMMAND...: it ends well and prints that
	local want=$1 out; shift
	out=$("$@" 2>&1) || { fail "$*: exit status $?: $out"; return; }
	out=$(tr -d '\r' <<<"$out")
	[ "$out" = "$want" ] || fail "$*: printed $out; want $want"
}
does() { local out; out=$("$@" 2>&1) || fail "$*: exit status $?: $out"; }
ends() {                                    # ends STATUS COMMAND...: its exit status is that
	local want=$1 out; shift
	out=$("$@" 2>&1); local got=$?
	[ $got = "$want" ] || fail "$*: exit status $got, want $want: $out"
}
systemctl=(systemctl)
units() { "${systemctl[@]}" list-units --all --plain --no-legend --type=scope "$1-*.scope" | cut -d' ' -f1; }
gone() {                                    # gone PREFIX: no scope is left within half a minute
	for _ in $(seq 150); do [ -z "$(units "$1")" ] && return; sleep 0.2; done
	fail "scopes that are left: $(units "$1")"
}

# What a container says of itself, in its cgroup namespace; what systemd says of its unit.
inside='cd /sys/fs/cgroup; cat memory.max pids.max cpu.max'
limits() { printf '%s\n%s\n%s' "$@"; }
unit() { "${systemctl[@]}" show --property MemoryMax,TasksMax,CPUQuotaPerSecUSec "$1" | sort; }
properties() { printf 'CPUQuotaPerSecUSec=%s\nMemoryMax=%s\nTasksMax=%s' "$@"; }

# lifecycle ENGINE PREFIX: what all engines do alike; PREFIX is that of their units.
lifecycle() {
	local e=$1 unit usage
	part "$e: run, exec, stats"
	does "$e" run --detach --name lim --memory 64m --pids-limit 40 --cpus 0.5 base sleep 1000
	unit=$(units "$2")
	is "$(limits 67108864 40 '50000 100000')" "$e" exec lim sh -c "$inside"
	is "$(properties 500ms 67108864 40)" unit "$unit"
	usage=$("$e" stats --no-stream --format '{{.MemUsage}}' lim 2>&1)
	case $usage in [1-9]*' / 67.11MB'|[1-9]*' / 64MiB') ;; *) fail "$e stats: $usage" ;; esac
	part "$e: update, pause"
	does "$e" update --memory 128m --memory-swap 128m --cpus 0.25 lim
	is "$(properties 250ms 134217728 40)" unit "$unit"
	does "$e" pause lim
	is 'frozen 1' grep frozen "/sys/fs/cgroup$("${systemctl[@]}" show --property ControlGroup --value "$unit")/cgroup.events"
	does "$e" unpause lim
	is "$(limits 134217728 40 '25000 100000')" "$e" exec lim sh -c "$inside"
	does "$e" rm --force lim
	part "$e: out of memory"
	ends 137 "$e" run --rm --memory 16m --memory-swap 16m base tail /dev/zero
	gone "$2"
}
# capable ENGINE: what takes all of root's capabilities, CAP_SYS_RESOURCE among them.
capable() {
	part "$1: privileged"
	is "$(printf '%s\n' -500 2097152)" "$1" run --rm --privileged --oom-score-adj -500 --ulimit nofile=2097152:2097152 base \
		sh -c 'mount -t tmpfs x /mnt && cat /proc/self/oom_score_adj && ulimit -n'
}

# Podman's configuration, for root and for the user.
mkdir -p /etc/containers
sysctl -q fs.nr_open=2097152
cat >"$dir/containers.conf" <<CONF
[engine]
cgroup_manager = "systemd"
events_logger = "file"
runtime_supports_json = ["${runtime##*/}"]
[network]
network_backend = "netavark"
CONF
export CONTAINERS_CONF=$dir/containers.conf
cd "$dir" || exit 1                         # where conmon notes that memory has run out
tool=(/usr/bin/podman --root "$dir/podman" --runroot /run/tare-podman --storage-driver overlay --runtime "$runtime")
podman() { # run without a network, for which the machine has nothing
	local verb=$1; shift
	case $verb in run|create) set -- --network none "$@" ;; esac
	"${tool[@]}" "$verb" "$@"
}
does podman load --quiet --input "$image"
lifecycle podman libpod
capable podman
part 'podman: checkpoint, restore'
does podman run --detach --name saved base sleep 1000
does podman container checkpoint saved
does podman container restore saved
is back podman exec saved echo back
does podman rm --force --time 0 saved
part 'podman: pod'
does podman pod create --name p --infra-image base --network none
is machine.slice "${tool[@]}" run --rm --pod p --cgroupns host base sh -c 'cut -d/ -f2 /proc/self/cgroup'
does podman pod rm --force --time 0 p
gone libpod

part 'podman of a user'
loginctl enable-linger test
for _ in $(seq 600); do [ -S /run/user/1000/bus ] && break; sleep 0.2; done
install -d -o test "$dir/user"
user=(setpriv --reuid 1000 --regid 1000 --clear-groups env HOME="$dir/user" XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus)
systemctl=("${user[@]}" systemctl --user)
tool=("${user[@]}" /usr/bin/podman --root "$dir/user/root" --runroot "$dir/user/run" --storage-driver vfs --runtime "$runtime")
cd "$dir/user" || exit 1
does podman load --quiet --input "$image"
lifecycle podman libpod
cd "$dir" || exit 1
systemctl=(systemctl)

# dockerd gives up on a containerd of its own after seconds that the machine may not have.
part 'docker'
cat >"$dir/containerd.toml" <<CONF
version = 2
root = "$dir/containerd"
state = "/run/tare-docker/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "/run/tare-containerd.sock"
CONF
cat >"$dir/daemon.json" <<CONF
{"data-root": "$dir/docker", "exec-root": "/run/tare-docker", "pidfile": "/run/tare-docker.pid", "hosts": ["unix:///run/tare-docker.sock"],
 "runtimes": {"tested": {"path": "$runtime"}}, "default-runtime": "tested", "exec-opts": ["native.cgroupdriver=systemd"],
 "storage-driver": "overlay2", "bridge": "none", "iptables": false, "oom-score-adjust": -500, "containerd": "/run/tare-containerd.sock"}
CONF
answers() { for _ in $(seq 120); do "$@" >/dev/null 2>&1 && return; sleep 1; done; fail "no answer: $*"; }
containerd --config "$dir/containerd.toml" --log-level warn >"$dir/daemon.log" 2>&1 & daemons=$!
answers ctr --address /run/tare-containerd.sock version
dockerd --config-file "$dir/daemon.json" --log-level warn >>"$dir/daemon.log" 2>&1 & daemons="$! $daemons"
docker() { command docker --host unix:///run/tare-docker.sock "$@"; }
answers docker version
part 'docker answers'
does docker load --quiet --input "$image"
is 'systemd 2' docker info --format '{{.CgroupDriver}} {{.CgroupVersion}}'
lifecycle docker docker
capable docker
for daemon in $daemons; do kill "$daemon"; wait "$daemon"; done
[ $bad = 0 ] || { tail -n 20 "$dir/daemon.log"; exit 1; }
part end
echo passed
