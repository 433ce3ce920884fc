//go:build kube

// Package helm pins the Helm that the suite installs the chart with.
package helm

import _ "helm.sh/helm/v3/cmd/helm"
