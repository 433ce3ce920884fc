// The resource types Handfast speaks, by their `Any` type URLs.

export const typeUrls = {
  secret: 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret',
  spiffeValidator: 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig',
  address: 'type.googleapis.com/istio.workload.Address',
  authorization: 'type.googleapis.com/istio.security.Authorization',
  servicePolicy: 'type.googleapis.com/handfast.policy.v1.ServicePolicy',
  trafficPolicy: 'type.googleapis.com/handfast.policy.v1.TrafficPolicy',
} as const;
