#!/bin/sh
# Runs the suite, or with -- any command, in a network namespace of its own, with an address that is no loopback address: an API server takes none for a Service's endpoint.
set -eu
cd "$(dirname "$0")/.."
HANDFAST_KUBE_ASSETS=$(sh test-kube/install.sh)
HANDFAST_HELM=$(sh test-kube/install-helm.sh)
HANDFAST_KUBE_HOST=10.200.0.1
export HANDFAST_KUBE_ASSETS HANDFAST_HELM HANDFAST_KUBE_HOST
if [ "${1:-}" = -- ]; then shift
else set -- node --test --test-concurrency=1 --test-timeout=300000 --test-reporter=./tools/quiet-reporter.ts "${@:-test-kube/*.test.ts}"; fi
exec unshare --net sh -euc '
  ip link set lo up
  ip address add "$HANDFAST_KUBE_HOST/24" dev lo
  exec "$@"' sh "$@"
