#!/bin/sh
# Brings a Kubernetes control plane for the suite and prints the folder with it: KUBEBUILDER_ASSETS if that is set, else built from Kubernetes' Go modules
# into a cache outside the repository (about ten minutes, once for each version), with Debian's etcd.
set -eu
cd "$(dirname "$0")"

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  for program in etcd kube-apiserver kubectl; do
    [ -x "$KUBEBUILDER_ASSETS/$program" ] || { echo "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS holds no $program" >&2; exit 1; }
  done
  echo "$KUBEBUILDER_ASSETS"
  exit 0
fi

version=$(sed -n 's/^require k8s.io\/kubernetes \(v[0-9.]*\)$/\1/p' go.mod)
assets="${XDG_CACHE_HOME:-${HOME:?}/.cache}/handfast-kube/$version"
mkdir -p "$assets"
if [ ! -e "$assets/etcd" ]; then
  etcd=$(PATH="$PATH:/usr/sbin:/sbin" command -v etcd) || { echo "etcd is missing: apt-get install etcd-server" >&2; exit 1; }
  ln -sf "$etcd" "$assets/etcd"
fi
for program in kube-apiserver kube-controller-manager kubectl; do
  [ -x "$assets/$program" ] && continue
  command -v go >/dev/null || { echo "$program is built with Go, which is missing: apt-get install golang, or set KUBEBUILDER_ASSETS" >&2; exit 1; }
  echo "building $program $version (once)" >&2
  CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=local go build -trimpath \
    -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=${version#v} " \
    -o "$assets/$program.new" "k8s.io/kubernetes/cmd/$program" >&2
  mv "$assets/$program.new" "$assets/$program"
done
echo "$assets"
