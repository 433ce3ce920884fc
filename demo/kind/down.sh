#!/bin/sh
# Takes away what up.sh has made: the cluster, with everything in it.
set -eu
command -v kind >/dev/null || { echo "kind is missing" >&2; exit 1; }
kind delete cluster --name "${KIND_CLUSTER:-handfast-demo}"
