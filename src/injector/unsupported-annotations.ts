// Annotations that Istio's injector obeys and this one cannot: whoever wrote them relies on what they do, so they are refused, not dropped.

/** Each with the values that ask for what is the case anyway. */
const UNSUPPORTED: Readonly<Record<string, readonly string[]>> = {
  'inject.istio.io/templates': ['sidecar'],
  'proxy.istio.io/overrides': [],
  'prometheus.istio.io/merge-metrics': ['false'],
  'readiness.status.sidecar.istio.io/applicationPorts': [''],
  'status.sidecar.istio.io/port': ['15020'],
  'sidecar.istio.io/agentLogLevel': [],
  'sidecar.istio.io/bootstrapOverride': [],
  'sidecar.istio.io/capNetBindService': ['false'],
  'sidecar.istio.io/componentLogLevel': [],
  'sidecar.istio.io/controlPlaneAuthPolicy': [],
  'sidecar.istio.io/discoveryAddress': [],
  'sidecar.istio.io/enableCoreDump': ['false'],
  'sidecar.istio.io/extraStatTags': [],
  'sidecar.istio.io/interceptionMode': ['REDIRECT'],
  'sidecar.istio.io/proxyImageType': [],
  'sidecar.istio.io/statsCompression': [],
  'sidecar.istio.io/statsEvictionInterval': [],
  'sidecar.istio.io/statsFlushInterval': [],
  'sidecar.istio.io/statsHistogramBuckets': [],
  'sidecar.istio.io/statsInclusionPrefixes': [],
  'sidecar.istio.io/statsInclusionRegexps': [],
  'sidecar.istio.io/statsInclusionSuffixes': [],
  'sidecar.istio.io/userVolume': [],
  'sidecar.istio.io/userVolumeMount': [],
  'istio.io/reroute-virtual-interfaces': [''],
  'traffic.sidecar.istio.io/kubevirtInterfaces': [''],
};

/** One line for each that stands there and asks for something else. */
export function unsupportedAnnotations(annotations: Readonly<Record<string, string>>): string[] {
  return Object.entries(UNSUPPORTED).flatMap(([name, accepted]) => {
    const value = annotations[name];
    if (value === undefined || accepted.includes(value)) return [];
    const but = accepted.length === 0 ? '' : `: ${JSON.stringify(value)} (${accepted.map((text) => JSON.stringify(text)).join(', ')} is)`;
    return [`annotation ${name} is not supported${but}: remove it`];
  });
}
