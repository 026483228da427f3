# helm: a chart goes to the registry and comes back.
at=${PLAIN:+--plain-http}
helm create app
helm package app
if [ "$LOGIN" ]; then
	fails helm push app-0.1.0.tgz "oci://$REG/$REPO"
	helm registry login --username "$LOGIN" --password-stdin "$REG" <<<"$PASSWORD"
fi
helm push $at app-0.1.0.tgz "oci://$REG/$REPO"
mkdir back
helm pull $at --destination back --version 0.1.0 "oci://$REG/$REPO/app"
cmp app-0.1.0.tgz back/app-0.1.0.tgz
helm show chart $at --version '>=0.1.0' "oci://$REG/$REPO/app" >chart.yaml # looks among the tags
grep -qx 'name: app' chart.yaml
helm template $at released "oci://$REG/$REPO/app" | grep -q 'kind: Deployment'
