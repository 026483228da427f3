# regctl: images, tags, blobs, and artifacts that refer to images.
regctl() { command regctl --verbosity warn "$@"; }
if [ "$PLAIN" ]; then
	regctl registry set --tls disabled --skip-check "$REG"
fi
if [ "$LOGIN" ]; then
	fails regctl tag ls "$REG/$REPO"
	regctl registry login --user "$LOGIN" --pass-stdin "$REG" <<<"$PASSWORD"
fi
regctl image copy "ocidir://$IMAGE:latest" "$REG/$REPO:v1"
is "$DIGEST" regctl image digest "$REG/$REPO:v1"
regctl image copy "$REG/$REPO:v1" ocidir://back:v1
cmp "$IMAGE/blobs/sha256/${ID#*:}" "back/blobs/sha256/${ID#*:}"
regctl blob head "$REG/$REPO" "$ID"
is "$(cat "$IMAGE/blobs/sha256/${ID#*:}")" regctl blob get "$REG/$REPO" "$ID"
grep -qx "$REPO" <(regctl repo ls "$REG")

echo '{}' >sbom.json
regctl artifact put --artifact-type application/spdx+json --subject "$REG/$REPO:v1" --file sbom.json --file-media-type application/spdx+json
is 1 jq '.descriptors | length' <(regctl artifact list --format '{{jsonPretty .}}' "$REG/$REPO:v1")
is '{}' regctl artifact get --subject "$REG/$REPO:v1" --filter-artifact-type application/spdx+json
regctl image copy --referrers "$REG/$REPO:v1" "$REG/$REPO/copy:v1"
is 1 jq '.descriptors | length' <(regctl artifact list --format '{{jsonPretty .}}' "$REG/$REPO/copy:v1")
is v1 regctl tag ls "$REG/$REPO/copy" # and no tag that stands in for a list of referrers

regctl image copy "$REG/$REPO:v1" "$REG/$REPO:v2"
regctl tag delete "$REG/$REPO:v2"
is v1 regctl tag ls "$REG/$REPO"
regctl manifest delete --force-tag-dereference "$REG/$REPO:v1"
fails regctl manifest head "$REG/$REPO:v1"
