// The resource types Handfast speaks, by their `Any` type URLs.

export const typeUrls = {
  secret: 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret',
  address: 'type.googleapis.com/istio.workload.Address',
  trafficPolicy: 'type.googleapis.com/handfast.policy.v1.TrafficPolicy',
} as const;
