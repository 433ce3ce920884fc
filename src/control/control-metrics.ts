// What Prometheus is told of control: who leads, what is followed and refused, who is served, how far rollouts have come. No names: whoever reaches the port reads it.

import { createServer } from 'node:http';
import { type HttpListener, listenHttp } from '../observe/listen-http.ts';
import { METRICS_CONTENT_TYPE, type MetricFamily, metricsText, single } from '../observe/metrics-text.ts';
import type { MeshObjects } from './objects/mesh-objects.ts';
import { rolloutPhases } from './rollout/rollout.ts';

export interface ControlMetrics {
  readonly leads: () => boolean;
  /** With the API server. */
  readonly inTouch: () => boolean;
  readonly objects: () => MeshObjects | undefined;
  /** How many objects are not in force as they stand. */
  readonly refused: () => number;
  /** Agents and sidecars that follow this replica or report to it. */
  readonly connected: () => number;
  readonly rollouts: () => readonly { readonly phase: string }[];
}

/** For a request to come, and for a scrape that does not read. */
const TIMEOUT_MS = 5_000;

export function familiesOf(of: ControlMetrics): MetricFamily[] {
  const gauge = (name: string, help: string) => ({ name: `handfast_control_${name}`, type: 'gauge', help }) as const;
  const objects = of.objects();
  const kinds =
    objects === undefined
      ? []
      : Object.entries(objects).flatMap(([kind, all]) => (Array.isArray(all) ? [{ labels: { kind }, value: all.length }] : []));
  const rollouts = of.rollouts();
  return [
    single(gauge('leads', 'Whether this replica takes rollouts forward and writes statuses.'), of.leads() ? 1 : 0),
    single(gauge('in_touch', 'Whether this replica can follow the API server; without one, always.'), of.inTouch() ? 1 : 0),
    single(gauge('connected', 'Agents and sidecars that this replica serves.'), of.connected()),
    { ...gauge('objects', 'Objects in force, by kind.'), samples: kinds },
    single(gauge('objects_refused', 'Objects that are not in force as they stand; their last good versions are.'), of.refused()),
    {
      ...gauge('rollouts', 'Rollouts of ScopeConfigs, by phase.'),
      samples: rolloutPhases.map((phase) => ({
        labels: { phase },
        value: rollouts.filter((rollout) => rollout.phase === phase).length,
      })),
    },
  ];
}

/** Plain HTTP, `/metrics` alone. Throws what listening throws. */
export function serveMetrics(
  at: { host: string; port: number },
  of: ControlMetrics,
  onError: (error: Error) => void,
): Promise<HttpListener> {
  const server = createServer({ requestTimeout: TIMEOUT_MS, headersTimeout: TIMEOUT_MS }, (request, response) => {
    const found = request.method === 'GET' && request.url === '/metrics';
    response.writeHead(found ? 200 : 404, { 'content-type': found ? METRICS_CONTENT_TYPE : 'text/plain', connection: 'close' });
    response.end(found ? metricsText(familiesOf(of)) : 'GET /metrics is served here\n');
  });
  server.maxConnections = 64;
  server.setTimeout(TIMEOUT_MS);
  return listenHttp(server, { ...at, onError });
}
