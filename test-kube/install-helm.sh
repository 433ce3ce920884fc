#!/bin/sh
# Brings Helm for the suite and prints where it is: $HELM if that is set, else built from its Go modules into the cache that install.sh uses (a minute or two, once for each version).
set -eu
cd "$(dirname "$0")/helm"

if [ -n "${HELM:-}" ]; then
  [ -x "$HELM" ] || { echo "HELM=$HELM is no program" >&2; exit 1; }
  echo "$HELM"
  exit 0
fi

version=$(sed -n 's/^require helm.sh\/helm\/v3 \(v[0-9.]*\)$/\1/p' go.mod)
cache="${XDG_CACHE_HOME:-${HOME:?}/.cache}/handfast-kube"
helm="$cache/helm-$version"
if [ ! -x "$helm" ]; then
  command -v go >/dev/null || { echo "helm is built with Go, which is missing: apt-get install golang, or set HELM" >&2; exit 1; }
  echo "building helm $version (once)" >&2
  mkdir -p "$cache"
  # As Helm's own build does: which Kubernetes `helm template` renders for.
  minor=$(sed -n 's/^\tk8s.io\/client-go v0\.\([0-9]*\)\..*/\1/p' go.mod)
  values=helm.sh/helm/v3/pkg/chartutil
  CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=local go build -trimpath \
    -ldflags="-s -w -X helm.sh/helm/v3/internal/version.version=$version -X $values.k8sVersionMajor=1 -X $values.k8sVersionMinor=$minor" -o "$helm.new" helm.sh/helm/v3/cmd/helm >&2
  mv "$helm.new" "$helm"
fi
echo "$helm"
