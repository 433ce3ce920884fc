// The ALPN names by which Istio's sidecars know mesh traffic from an application's own TLS.

/** Offered by us as a client. */
export const MESH_ALPN = 'istio';

/** Chosen by us as a server, best first. `istio-peer-exchange` would oblige us to a metadata preamble, so it is recognised, never chosen. */
const CHOOSABLE = [MESH_ALPN, 'istio-http/1.1', 'istio-http/1.0', 'istio-h2'] as const;
const RECOGNISED: ReadonlySet<string> = new Set([...CHOOSABLE, 'istio-peer-exchange']);

/** Whether a ClientHello is addressed to a sidecar rather than to the application. */
export function isMeshAlpn(offered: readonly string[]): boolean {
  return offered.some((name) => RECOGNISED.has(name));
}

/** Undefined refuses the handshake with no_application_protocol. */
export function chooseAlpn(offered: readonly string[]): string | undefined {
  return CHOOSABLE.find((name) => offered.includes(name));
}

export const HTTP2_ALPN = 'h2';

/** For gRPC and tunnels. */
export function chooseHttp2(offered: readonly string[]): string | undefined {
  return offered.includes(HTTP2_ALPN) ? HTTP2_ALPN : undefined;
}
