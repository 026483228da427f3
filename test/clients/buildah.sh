# Debian's buildah: from a registry's image, commit, push, and from that again.
at=${PLAIN:+--tls-verify=false}
buildah() { command buildah --root "$PWD/root" --runroot "$PWD/run" --storage-driver vfs "$@"; }
mkdir -p containers && echo '{"default": [{"type": "insecureAcceptAnything"}]}' >containers/policy.json
if [ "$LOGIN" ]; then
	buildah login --username "$LOGIN" --password-stdin "$REG" <<<"$PASSWORD"
fi
ln -s "$IMAGE" image # buildah makes a name of the path
buildah push $at "$(buildah pull --quiet oci:image:latest)" "docker://$REG/$REPO:v1"
buildah rmi --all --force
container=$(buildah from --quiet $at "$REG/$REPO:v1")
echo made >file
buildah copy --quiet "$container" file /made
buildah config --label by=test "$container"
buildah commit --quiet --rm "$container" made
buildah push --quiet $at --digestfile digest made "docker://$REG/$REPO:v2"
buildah push --quiet $at --format docker made "docker://$REG/$REPO:docker"
buildah rmi --all --force
buildah pull --quiet $at "$REG/$REPO@$(cat digest)"
is test buildah inspect --type image --format '{{.OCIv1.Config.Labels.by}}' "$REG/$REPO@$(cat digest)"
buildah pull --quiet $at "$REG/$REPO:docker"
is test buildah inspect --type image --format '{{.Docker.Config.Labels.by}}' "$REG/$REPO:docker"
