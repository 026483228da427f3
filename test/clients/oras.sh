# oras: artifacts, and what is attached to them.
at=${PLAIN:+--plain-http}
if [ "$LOGIN" ]; then
	fails oras repo tags "$REG/$REPO"
	oras login --username "$LOGIN" --password-stdin "$REG" <<<"$PASSWORD"
fi
echo weights >model.bin
oras push $at --artifact-type application/vnd.test.model "$REG/$REPO:model" model.bin:application/octet-stream
oras pull $at --output back "$REG/$REPO:model"
cmp model.bin back/model.bin

oras copy --from-oci-layout ${PLAIN:+--to-plain-http} "$IMAGE:latest" "$REG/$REPO:v1"
is "$DIGEST" oras resolve $at "$REG/$REPO:v1"
echo '{}' >sbom.json
oras attach $at --artifact-type application/spdx+json "$REG/$REPO:v1" sbom.json
oras attach $at --artifact-type application/vnd.test.signature --annotation by=test "$REG/$REPO:v1"
discover() { oras discover $at --distribution-spec v1.1-referrers-api --format json "$@" "$REG/$REPO:v1" | jq -c '[(.referrers // .manifests)[].artifactType] | sort'; }
is '["application/spdx+json","application/vnd.test.signature"]' discover
is '["application/spdx+json"]' discover --artifact-type application/spdx+json
is 'model v1' paste -sd ' ' <(oras repo tags $at "$REG/$REPO") # and none that stands in for a list
grep -qx "$REPO" <(oras repo ls $at "$REG")

oras copy --recursive ${PLAIN:+--from-plain-http --to-plain-http} "$REG/$REPO:v1" "$REG/$REPO/copy:v1"
is 2 jq '(.referrers // .manifests) | length' <(oras discover $at --format json "$REG/$REPO/copy:v1")
is '{}' oras blob fetch $at --output - "$REG/$REPO@sha256:$(sha256sum <sbom.json | cut -d ' ' -f 1)"
oras tag $at "$REG/$REPO:v1" v2 v3
oras manifest delete $at --force "$REG/$REPO@$DIGEST"
fails oras resolve $at "$REG/$REPO:v3"
