#!/bin/sh
# Prints the plain manifests, which are what the chart renders with its defaults, in a namespace that may hold the agents: sh deploy/render.sh > deploy/manifests/handfast.yaml
set -eu
cd "$(dirname "$0")/.."
helm=$(sh test-kube/install-helm.sh)
echo "# Made by deploy/render.sh from deploy/namespace.yaml and deploy/chart; do not edit."
cat deploy/namespace.yaml
# Helm says to stderr that it follows a link of ours.
"$helm" template handfast deploy/chart --namespace handfast-system 2>/dev/null
