// Envoy on one worker thread, in two forms: a TLS session for each connection, and HBONE, where connections are CONNECT streams over a
// pool of HTTP/2 sessions. Envoy reads YAML, so it reads JSON.

import { BACKEND_PORT } from '../backend.ts';
import { SERVER_NAME } from '../certificates.ts';
import { dialingPort, HBONE_PORT, type Peer, type Place, servingPort } from './peer.ts';

const NETWORK = 'type.googleapis.com/envoy.extensions.filters.network';
const TLS = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3';
/** Never the limit. */
const UNLIMITED = 100_000;

/** Both forms are one program. */
export function envoy(of: { version: string; binary: string }): Peer[] {
  const launch = (place: Place, listener: object, cluster: object) => ({
    command: [of.binary, '-c', place.configFile, '--concurrency', '1', '-l', 'error', '--disable-hot-restart'],
    config: JSON.stringify({ static_resources: { listeners: [listener], clusters: [cluster] } }),
  });
  const { version } = of;
  return [
    {
      name: 'envoy',
      version,
      serving: (place) =>
        launch(place, listener('0.0.0.0', servingPort, tcpProxy({}), downstreamTls(place, 'istio')), clusterTo('127.0.0.1', BACKEND_PORT)),
      dialing: (place) =>
        launch(
          place,
          listener('127.0.0.1', dialingPort, tcpProxy({})),
          clusterTo(place.to, servingPort, { transport_socket: upstreamTls(place, 'istio') }),
        ),
    },
    {
      name: 'envoy-hbone',
      version,
      tunnels: true,
      serving: (place) =>
        launch(
          place,
          listener('0.0.0.0', HBONE_PORT, connectTerminator(), downstreamTls(place, 'h2')),
          clusterTo('127.0.0.1', BACKEND_PORT),
        ),
      dialing: (place) =>
        launch(
          place,
          listener('127.0.0.1', dialingPort, tcpProxy({ tunneling_config: { hostname: `${place.to}:${BACKEND_PORT}` } })),
          clusterTo(place.to, HBONE_PORT, { transport_socket: upstreamTls(place, 'h2'), typed_extension_protocol_options: http2 }),
        ),
    },
  ];
}

const http2 = {
  'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
    '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
    explicit_http_config: { http2_protocol_options: {} },
  },
};

function tcpProxy(more: object): object {
  return { name: 'tcp', typed_config: { '@type': `${NETWORK}.tcp_proxy.v3.TcpProxy`, stat_prefix: 'tcp', cluster: 'next', ...more } };
}

function connectTerminator(): object {
  const upgrade = { upgrade_type: 'CONNECT' };
  return {
    name: 'http',
    typed_config: {
      '@type': `${NETWORK}.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: 'connect',
      codec_type: 'HTTP2',
      http2_protocol_options: { allow_connect: true },
      upgrade_configs: [upgrade],
      stream_idle_timeout: '0s',
      route_config: {
        virtual_hosts: [
          {
            name: 'all',
            domains: ['*'],
            routes: [
              {
                match: { connect_matcher: {} },
                route: { cluster: 'next', timeout: '0s', upgrade_configs: [{ ...upgrade, connect_config: {} }] },
              },
            ],
          },
        ],
      },
      http_filters: [{ name: 'router', typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' } }],
    },
  };
}

function listener(address: string, port: number, filter: object, transportSocket?: object): object {
  return {
    name: 'in',
    address: { socket_address: { address, port_value: port } },
    tcp_backlog_size: 4096,
    filter_chains: [{ filters: [filter], ...(transportSocket === undefined ? {} : { transport_socket: transportSocket }) }],
  };
}

function clusterTo(address: string, port: number, more: object = {}): object {
  const limits = { max_connections: UNLIMITED, max_pending_requests: UNLIMITED, max_requests: UNLIMITED };
  return {
    name: 'next',
    type: 'STATIC',
    connect_timeout: '10s',
    circuit_breakers: { thresholds: [limits] },
    load_assignment: {
      cluster_name: 'next',
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address, port_value: port } } } }] }],
    },
    ...more,
  };
}

function common({ credentials: { chain, key, root }, group }: Place, alpn: string, more: object): object {
  return {
    alpn_protocols: [alpn],
    // BoringSSL chooses among TLS 1.3's cipher suites itself.
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3', ecdh_curves: [group] },
    tls_certificates: [{ certificate_chain: { filename: chain }, private_key: { filename: key } }],
    validation_context: { trusted_ca: { filename: root }, ...more },
  };
}

function downstreamTls(place: Place, alpn: string): object {
  return {
    name: 'tls',
    typed_config: {
      '@type': `${TLS}.DownstreamTlsContext`,
      require_client_certificate: true,
      // Full handshakes only.
      disable_stateless_session_resumption: true,
      disable_stateful_session_resumption: true,
      common_tls_context: common(place, alpn, {}),
    },
  };
}

function upstreamTls(place: Place, alpn: string): object {
  const matcher = { san_type: 'DNS', matcher: { exact: SERVER_NAME } };
  return {
    name: 'tls',
    typed_config: {
      '@type': `${TLS}.UpstreamTlsContext`,
      sni: SERVER_NAME,
      max_session_keys: 0,
      common_tls_context: common(place, alpn, { match_typed_subject_alt_names: [matcher] }),
    },
  };
}
