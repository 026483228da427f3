# Debian's podman, without containers: push, pull, search, manifest lists.
at=${PLAIN:+--tls-verify=false}
podman() { command podman --root "$PWD/root" --runroot "$PWD/run" --storage-driver vfs "$@"; }
mkdir -p containers && echo '{"default": [{"type": "insecureAcceptAnything"}]}' >containers/policy.json
if [ "$LOGIN" ]; then
	fails podman pull "$REG/$REPO:v1"
	podman login --username "$LOGIN" --password-stdin "$REG" <<<"$PASSWORD"
fi
ln -s "$IMAGE" image # podman makes a name of the path
podman pull --quiet oci:image:latest
podman push $at "$ID" "docker://$REG/$REPO:v1"
podman rmi --force "$ID"
podman pull --quiet $at "$REG/$REPO:v1"
is "${ID#*:}" podman image inspect --format '{{.Id}}' "$REG/$REPO:v1"
podman push $at --compression-format zstd "$REG/$REPO:v1" "docker://$REG/$REPO:zstd"
podman search $at --list-tags --format json "$REG/$REPO" >tags
is '["v1","zstd"]' jq -c '.[0].Tags' tags

podman manifest create list
podman manifest add $at list "docker://$REG/$REPO:v1"
podman manifest push --all $at list "docker://$REG/$REPO:list"
podman rmi --all --force
podman pull --quiet $at "$REG/$REPO:list"
is "${ID#*:}" podman image inspect --format '{{.Id}}' "$REG/$REPO:list"
