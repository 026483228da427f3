# crane. On loopback addresses it tries plain HTTP by itself.
if [ "$LOGIN" ]; then
	fails crane digest "$REG/$REPO:v1"
	crane auth login --username "$LOGIN" --password "$PASSWORD" "$REG"
fi
crane push "$IMAGE" "$REG/$REPO:v1"
is "$DIGEST" crane digest "$REG/$REPO:v1"
crane validate --remote "$REG/$REPO:v1"
crane pull --format oci "$REG/$REPO:v1" back
cmp "$IMAGE/blobs/sha256/${ID#*:}" "back/blobs/sha256/${ID#*:}"
is "$ID" echo "sha256:$(crane config "$REG/$REPO:v1" | sha256sum | cut -d ' ' -f 1)"

crane copy "$REG/$REPO:v1" "$REG/$REPO/copy:v1" # by mounts
is "$DIGEST" crane digest "$REG/$REPO/copy:v1"
crane tag "$REG/$REPO:v1" v2
is 'v1 v2' paste -sd ' ' <(crane ls "$REG/$REPO")
tar -cf layer.tar -C / etc/hostname
crane append --base "$REG/$REPO:v1" --new_layer layer.tar --new_tag "$REG/$REPO:v3"
crane mutate --label by=test --tag "$REG/$REPO:v4" "$REG/$REPO:v3"
is test jq -r .config.Labels.by <(crane config "$REG/$REPO:v4")
crane validate --remote "$REG/$REPO:v4"
crane index append --manifest "$REG/$REPO:v1" --manifest "$REG/$REPO:v4" --tag "$REG/$REPO:index"
crane validate --remote "$REG/$REPO:index"
grep -qx "$REPO/copy" <(crane catalog "$REG")
crane delete "$REG/$REPO/copy@$DIGEST"
fails crane digest "$REG/$REPO/copy:v1"
