# Debian's skopeo: copy in both directions, inspect, list-tags, sync, delete.
to=${PLAIN:+--dest-tls-verify=false} from=${PLAIN:+--src-tls-verify=false} at=${PLAIN:+--tls-verify=false}
skopeo() { command skopeo --insecure-policy "$@"; }
if [ "$LOGIN" ]; then
	fails skopeo inspect "docker://$REG/$REPO"
	fails skopeo login --username "$LOGIN" --password wrong "$REG"
	skopeo login --username "$LOGIN" --password-stdin "$REG" <<<"$PASSWORD"
fi
skopeo copy $to --preserve-digests "oci:$IMAGE:latest" "docker://$REG/$REPO:v1"
is "$DIGEST" skopeo inspect $at --format '{{.Digest}}' "docker://$REG/$REPO:v1"
skopeo copy $from "docker://$REG/$REPO@$DIGEST" oci:back:v1
cmp "$IMAGE/blobs/sha256/${ID#*:}" "back/blobs/sha256/${ID#*:}"

# Docker's media types, between two repositories of one registry, and to a directory.
skopeo copy $from $to --format v2s2 "docker://$REG/$REPO:v1" "docker://$REG/$REPO/docker:v2"
is '["v2"]' jq -c .Tags <(skopeo list-tags $at "docker://$REG/$REPO/docker")
skopeo sync $from --src docker --dest dir "$REG/$REPO/docker" synced
is application/vnd.docker.distribution.manifest.v2+json jq -r .mediaType synced/docker:v2/manifest.json

skopeo delete $at "docker://$REG/$REPO:v1"
fails skopeo inspect $at "docker://$REG/$REPO:v1"
