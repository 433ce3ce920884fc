//go:build peers

// Package peers pins the real programs that the interop suite runs against.
package peers

import (
	_ "github.com/spiffe/spiffe-helper/cmd/spiffe-helper"
	_ "github.com/spiffe/spire/cmd/spire-agent"
	_ "github.com/spiffe/spire/cmd/spire-server"
)
