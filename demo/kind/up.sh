#!/bin/sh
# A mesh in a kind cluster, from nothing: image, cluster, chart, applications; then who can reach whom, before and after STRICT, and with one pod excepted. down.sh takes it all away.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
name=${KIND_CLUSTER:-handfast-demo}
context=kind-$name
image=handfast:demo

for program in docker kind kubectl helm; do
  command -v "$program" >/dev/null || { echo "$program is missing; this needs docker, kind, kubectl and helm" >&2; exit 1; }
done

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
on_cluster() { kubectl --context "$context" "$@"; }

# ask NAMESPACE URL: the HTTP status that the sleep pod of this namespace gets, 000 where there is none.
ask() {
  on_cluster exec --namespace "$1" deployment/sleep --container sleep -- \
    curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' "$2" 2>/dev/null || true
}

failed=0
# expect STATUS NAMESPACE URL: until it is so; a change of policy takes a moment to arrive.
expect() {
  got=
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    got=$(ask "$2" "$3")
    [ "$got" = "$1" ] && break
    sleep 1
  done
  if [ "$got" = "$1" ]; then verdict=ok; else verdict="FAILED, $1 was expected"; failed=$((failed + 1)); fi
  printf '  %-8s -> %-36s %s  %s\n' "$2" "$3" "$got" "$verdict"
}

# matrix STATUS-FOR-LEGACY
matrix() {
  for from in foo bar legacy; do
    for to in foo bar; do
      if [ "$from" = legacy ]; then wanted=$1; else wanted=200; fi
      expect "$wanted" "$from" "http://httpbin.$to:8000/status/200"
    done
  done
  for from in foo bar legacy; do expect 200 "$from" http://httpbin.legacy:8000/status/200; done
}

say "The image"
docker build --tag "$image" "$root"

say "The cluster"
if ! kind get clusters 2>/dev/null | grep -qx "$name"; then kind create cluster --name "$name" --wait 3m; fi
kind load docker-image "$image" --name "$name"

say "The mesh"
helm upgrade --install handfast "$root/deploy/chart" --kube-context "$context" --namespace handfast-system --create-namespace \
  --set image.tag=demo --set crds.istio=true --set agent.cgroupRoot=/kubelet --wait --timeout 5m

say "The applications: foo and bar with sidecars, legacy without"
on_cluster apply --filename "$here/manifests/namespaces.yaml"
for namespace in foo bar legacy; do
  for application in sleep httpbin; do on_cluster apply --namespace "$namespace" --filename "$here/manifests/$application.yaml"; done
done
for namespace in foo bar legacy; do
  for application in sleep httpbin; do on_cluster rollout status --namespace "$namespace" "deployment/$application" --timeout 3m; done
done

say "PERMISSIVE: everybody reaches everybody, the meshed ones by mTLS"
matrix 200

say "STRICT in foo and bar: plaintext from legacy is refused"
for namespace in foo bar; do on_cluster apply --namespace "$namespace" --filename "$here/manifests/strict.yaml"; done
matrix 000

say "A ScopeConfig opens one pod of bar's httpbin, and only that one"
pods=$(on_cluster get pods --namespace bar --selector app=httpbin --output jsonpath='{range .items[*]}{.metadata.name}={.status.podIP} {end}')
open=${pods%% *}
closed=${pods#* }
closed=${closed%% *}
on_cluster label pod --namespace bar --overwrite "${open%%=*}" demo=open
on_cluster apply --namespace bar --filename "$here/manifests/one-pod.yaml"
expect 200 legacy "http://${open#*=}:8080/status/200"
expect 000 legacy "http://${closed#*=}:8080/status/200"
expect 200 foo http://httpbin.bar:8000/status/200

say "And back"
on_cluster delete --namespace bar --filename "$here/manifests/one-pod.yaml"
expect 000 legacy "http://${open#*=}:8080/status/200"

if [ "$failed" -gt 0 ]; then say "$failed checks failed"; exit 1; fi
say "All as it should be. demo/kind/down.sh removes the cluster."
