# systemd.sh TARE-RUNTIME: the systemd driver in a machine whose first process is systemd. Each check names what it wants.
set -u
runtime=$1 bad=0
want() { # want WHAT GOT VALUE
	if [ "$2" != "$3" ]; then echo "FAIL $1: got '$2', want '$3'"; bad=1; fi
}
contains() { case $2 in *"$3"*) ;; *) echo "FAIL $1: got '$2', want '$3' in it"; bad=1 ;; esac }
succeeds() { local out; out=$("$@" 2>&1 </dev/null) || { echo "FAIL $*: $out"; bad=1; }; }
fails() { local text=$1 out; shift; if out=$("$@" 2>&1 </dev/null); then echo "FAIL $*: no error"; bad=1; else contains "$*" "$out" "$text"; fi; }
# started RUNTIME…: a command that leaves a process behind, which would keep a pipe open
started() { "$@" >/tmp/started 2>&1 </dev/null || { echo "FAIL $*: $(cat /tmp/started)"; bad=1; }; }
unit() { "${systemctl[@]}" show "$1" -p "$2" --value; }

# bundle DIR EXAMPLE-FLAG… : a busybox that sleeps
bundle() {
	local dir=$1; shift
	mkdir -p "$dir/rootfs/bin"
	cp /bin/busybox "$dir/rootfs/bin"
	for applet in sh sleep cat; do ln -sf busybox "$dir/rootfs/bin/$applet"; done
	(cd "$dir" && "$@" && sed -i 's/"terminal": true/"terminal": false/; s/"sh"$/"sleep", "1000"/' config.json)
}
# linux DIR JSON: fields for the configuration's section
linux() { sed -i "s#\"linux\": {.*#\"linux\": {$2#" "$1/config.json"; }

v2=; [ -f /sys/fs/cgroup/cgroup.controllers ] && v2=1
dir_of() { if [ $v2 ]; then echo "/sys/fs/cgroup$(unit "$1" ControlGroup)"; else echo "/sys/fs/cgroup/$2$(unit "$1" ControlGroup)"; fi; }
systemctl=(systemctl)

echo "root, slice:prefix:name, limits"
bundle /root/b "$runtime" spec
sed -i 's#"resources": {#"resources": {"memory":{"limit":67108864},"cpu":{"shares":512,"quota":25500,"period":100000},"pids":{"limit":77},#' /root/b/config.json
linux /root/b '"cgroupsPath":"test-a.slice:cri:c1",'
cd /root/b
started "$runtime" --systemd-cgroup create c1
succeeds "$runtime" start c1
want slice "$(unit cri-c1.scope Slice)" test-a.slice
want cgroup "$(unit cri-c1.scope ControlGroup)" /test.slice/test-a.slice/cri-c1.scope
want delegated "$(unit cri-c1.scope Delegate)" yes
want tasks "$(unit cri-c1.scope TasksMax)" 77
want quota "$(unit cri-c1.scope CPUQuotaPerSecUSec)" 260ms
want policy "$(unit cri-c1.scope DevicePolicy)" strict
contains devices "$(unit cri-c1.scope DeviceAllow)" "char-136 rwm"
pid=$("$runtime" state c1 | sed -n 's/.*"pid": \([0-9]*\),/\1/p')
want pids "$(cat "$(dir_of cri-c1.scope pids)/pids.max")" 77
want process "$(cat "$(dir_of cri-c1.scope freezer)/cgroup.procs")" "$pid"
if [ $v2 ]; then
	want memory "$(unit cri-c1.scope MemoryMax)" 67108864
	want weight "$(unit cri-c1.scope CPUWeight)" 59
	want cpu.max "$(cat "$(dir_of cri-c1.scope)/cpu.max")" "25500 100000"
else
	want memory "$(unit cri-c1.scope MemoryLimit)" 67108864
	want shares "$(unit cri-c1.scope CPUShares)" 512
	want quota "$(cat "$(dir_of cri-c1.scope cpu)/cpu.cfs_quota_us")" 25500
fi
echo "update, also after systemd has looked at all of its units again"
succeeds "$runtime" update --pids-limit 99 --cpu-quota 50000 c1
systemctl daemon-reload
want tasks "$(unit cri-c1.scope TasksMax)" 99
want pids "$(cat "$(dir_of cri-c1.scope pids)/pids.max")" 99
want quota "$(unit cri-c1.scope CPUQuotaPerSecUSec)" 500ms
want devices "$("$runtime" exec c1 sh -c ': </dev/full && : >/dev/null && echo open')" open
echo "pause, exec, kill, delete"
succeeds "$runtime" pause c1
contains status "$("$runtime" state c1)" '"paused"'
succeeds "$runtime" resume c1
contains exec "$("$runtime" exec c1 cat /proc/1/comm)" sleep
echo "checkpoint, restore"
succeeds "$runtime" checkpoint --image-path /root/image --work-path /root/work c1
want unit "$(unit cri-c1.scope LoadState)" not-found
started "$runtime" --systemd-cgroup restore --detach --image-path /root/image --work-path /root/work c1
contains status "$("$runtime" state c1)" '"running"'
contains exec "$("$runtime" exec c1 cat /proc/1/comm)" sleep
want cgroup "$(unit cri-c1.scope ControlGroup)" /test.slice/test-a.slice/cri-c1.scope
want limits "$(cat "$(dir_of cri-c1.scope pids)/pids.max")" 77
want process "$(cat "$(dir_of cri-c1.scope freezer)/cgroup.procs")" "$("$runtime" state c1 | sed -n 's/.*"pid": \([0-9]*\),/\1/p')"
dir=$(dir_of cri-c1.scope freezer)
succeeds "$runtime" delete --force c1
want unit "$(unit cri-c1.scope LoadState)" not-found
[ ! -d "$dir" ] || { echo "FAIL $dir is still there"; bad=1; }

echo "a path of another form; defaults, annotations, the shared bus"
linux /root/b '"cgroupsPath":"/x/y",'
fails 'slice:prefix:name' "$runtime" --systemd-cgroup create c2
linux /root/b ''
sed -i 's#"linux": {#"annotations": {"org.systemd.property.TimeoutStopSec":"12"},\n"linux": {#' config.json
mv /run/systemd/private /run/systemd/private.away
started "$runtime" --cgroup-manager systemd run -d c3
mv /run/systemd/private.away /run/systemd/private
want default "$(unit runc-c3.scope ControlGroup)" /system.slice/runc-c3.scope
want annotation "$(unit runc-c3.scope TimeoutStopUSec)" 12s
succeeds "$runtime" kill c3 9
succeeds "$runtime" delete --force c3
want unit "$(unit runc-c3.scope LoadState)" not-found
fails 'annotations' sh -c 'sed -i s/\"12\"/\"twelve\"/ config.json; exec "$0" --systemd-cgroup run -d c4' "$runtime"
want leftovers "$(ls /run/tare-runtime)" ""

user=(setpriv --reuid 1000 --regid 1000 --clear-groups env -i HOME=/home/test "PATH=$PATH" XDG_RUNTIME_DIR=/run/user/1000)
loginctl enable-linger test
for _ in $(seq 600); do [ -S /run/user/1000/bus ] && break; sleep 0.2; done
mkdir -p /home/test/b && chown -R test /home/test
bundle /home/test/b "${user[@]}" "$runtime" spec --rootless
chown -R test /home/test
cd /home/test/b
linux /home/test/b '"cgroupsPath":"user.slice:rl:u1","resources":{"memory":{"limit":67108864},"pids":{"limit":77}},'
systemctl=("${user[@]}" systemctl --user)
if [ $v2 ]; then
	echo "a user, who is in no cgroup of his own"
	started "${user[@]}" "$runtime" --systemd-cgroup create u1
	succeeds "${user[@]}" "$runtime" start u1
	want cgroup "$(unit rl-u1.scope ControlGroup)" /user.slice/user-1000.slice/user@1000.service/user.slice/rl-u1.scope
	want memory "$(cat "$(dir_of rl-u1.scope)/memory.max")" 67108864
	succeeds "${user[@]}" "$runtime" update --memory 80m u1
	want memory "$(cat "$(dir_of rl-u1.scope)/memory.max")" 83886080
	contains exec "$("${user[@]}" "$runtime" exec u1 cat /proc/self/cgroup)" rl-u1.scope
	succeeds "${user[@]}" "$runtime" pause u1
	succeeds "${user[@]}" "$runtime" delete --force u1
	want unit "$(unit rl-u1.scope LoadState)" not-found
else
	fails "cgroup v2 only" "${user[@]}" "$runtime" --systemd-cgroup create u1
fi
echo "a user without systemd: limits need a cgroup that he may make, a path is one that he must"
fails "permission denied" "${user[@]}" "$runtime" create u2
linux /home/test/b '"resources":{"pids":{"limit":77}},'
fails "linux.resources.pids.limit: no permission" "${user[@]}" "$runtime" create u2
linux /home/test/b ''
started "${user[@]}" "$runtime" create u2
succeeds "${user[@]}" "$runtime" start u2
succeeds "${user[@]}" "$runtime" kill --all u2 9
succeeds "${user[@]}" "$runtime" delete --force u2
[ $bad = 0 ] && echo passed
exit $bad
