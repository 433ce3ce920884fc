//go:build peers

// Package istio pins the istiod that `make interop-istio` runs against.
package istio

import (
	_ "istio.io/istio/pilot/cmd/pilot-discovery"
)
