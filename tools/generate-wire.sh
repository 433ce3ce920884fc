#!/bin/sh
# Makes src/wire/gen from proto/. Needs protoc (Debian: protobuf-compiler). The result is committed, so that builds need no protoc.
set -eu
cd "$(dirname "$0")/.."
rm -rf src/wire/gen
mkdir -p src/wire/gen
# shellcheck disable=SC2046
protoc --plugin=node_modules/.bin/protoc-gen-ts_proto -Iproto \
  --ts_proto_out=src/wire/gen \
  --ts_proto_opt=outputServices=grpc-js,oneof=unions-value,enumsAsLiterals=true,outputJsonMethods=false,outputPartialMethods=false,importSuffix=.ts,esModuleInterop=true,env=node,useDate=false \
  $(cd proto && find . -name '*.proto' | sed 's|^./||' | sort)
