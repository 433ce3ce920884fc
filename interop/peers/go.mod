module handfast.io/interop/peers

go 1.25.3

require (
	github.com/spiffe/spiffe-helper v0.11.0
	github.com/spiffe/spire v1.13.3
)
