# Our own client, with registries that others have written.
T="tare --quiet"
printf %s "$PASSWORD" | $T login --username "$LOGIN" --password-stdin "$REG"
printf wrong | fails $T login --username "$LOGIN" --password-stdin "$REG"
$T copy "oci:$IMAGE:latest" "docker://$REG/$REPO/app:v1"
is "$DIGEST" $T copy "docker://$REG/$REPO/app:v1" "docker://$REG/$REPO/other:v1"
is "$DIGEST" $T copy "docker://$REG/$REPO/other:v1" "oci:copy:v1"
is "$DIGEST" $T pull "$REG/$REPO/app:v1"
$T push "$REG/$REPO/app:v1" "docker://$REG/$REPO/app:v2"
is "v1
v2" $T tags "$REG/$REPO/app"
$T repos "$REG" | grep -qx "$REG/$REPO/app"
fails $T tags "$REG/$REPO/none"
fails $T pull "$REG/$REPO/app:none"
$T inspect --raw "docker://$REG/$REPO/app:v1" | sha256sum | grep -q "^${DIGEST#sha256:} "

echo '{"spdxVersion":"SPDX-2.3"}' >sbom.json
$T attach --artifact-type application/spdx+json "$REG/$REPO/app:v1" sbom.json:application/spdx+json >attached
$T discover "$REG/$REPO/app:v1" | grep -qF "application/spdx+json  $(cat attached)"
head -c 12000000 /dev/urandom >model.bin
$T artifact push --artifact-type application/vnd.test.model "$REG/$REPO/model:1" model.bin
is model.bin $T artifact pull -o out "$REG/$REPO/model:1"
cmp model.bin out/model.bin

# From one registry to another, and a second time.
$T sync "$REG/$REPO/app" "docker://$REG/$REPO/mirror" >first
$T sync "$REG/$REPO/app" "docker://$REG/$REPO/mirror" >again
grep -q "^copied .*/app:v1 $DIGEST" first
fails grep -v ^unchanged again
is "$DIGEST" $T copy "docker://$REG/$REPO/mirror/$REPO/app:v1" oci:copy:v2

$T delete "$REG/$REPO/other@$DIGEST"
fails $T copy "docker://$REG/$REPO/other:v1" oci:copy:v3
$T logout "$REG"
fails $T tags "$REG/$REPO/app"
