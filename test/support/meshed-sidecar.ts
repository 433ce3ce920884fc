// A sidecar of the harness that has its certificate, bundle and revocations from a real agent, and reports to it.

import { runIdentityStreams } from '../../src/discovery/identity-streams.ts';
import { runLedgerClient } from '../../src/discovery/ledger-client.ts';
import { runReportClient } from '../../src/discovery/report-client.ts';
import type { SdsClientOptions } from '../../src/discovery/sds-client.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { clientContext } from '../../src/tls/context.ts';
import { type GrpcTarget, unixTarget } from '../../src/wire/grpc-target.ts';
import type { ControlPlane } from './control-plane.ts';
import { type RunningSidecar, type SidecarSetup, startSidecar } from './sidecar-harness.ts';

export interface MeshedSetup extends Omit<SidecarSetup, 'namespace' | 'identity'> {
  readonly protocol?: NonNullable<SdsClientOptions['protocol']>;
  readonly names?: { readonly svid: string; readonly bundle: string };
  /** Another SDS server than the plane's agent. */
  readonly target?: GrpcTarget;
  readonly crl?: string | undefined;
}

/** Waits until the sidecar has its identity. Its pod is in namespace foo. */
export async function startMeshedSidecar(plane: Pick<ControlPlane, 'address' | 'token'>, setup: MeshedSetup): Promise<RunningSidecar> {
  const sidecar = await startSidecar({ ...setup, namespace: 'foo' });
  const stop = new AbortController();
  const token = new Snapshot(await plane.token(setup.serviceAccount ?? setup.name));
  const { log } = sidecar.records;
  const target = unixTarget(plane.address('agent'));
  const streams = [
    runIdentityStreams({
      target: setup.target ?? target,
      nodeId: setup.name,
      token,
      ...(setup.protocol === undefined ? {} : { protocol: setup.protocol }),
      ...(setup.names === undefined ? {} : { names: setup.names }),
      crl: 'crl' in setup ? setup.crl : 'CRL',
      identity: sidecar.identity,
      revocations: sidecar.revocations,
      prove: clientContext,
      log,
      now: setup.now ?? Date.now,
      signal: stop.signal,
    }),
    runReportClient({
      target,
      token,
      peers: () => sidecar.sidecar.tracker.livePeers().map((peer) => ({ pod: `foo/${setup.name}`, ...peer })),
      log,
      signal: stop.signal,
    }),
    runLedgerClient({
      target,
      token,
      ledgers: () => [{ pod: `foo/${setup.name}`, reporter: '', ended: false, ledger: sidecar.sidecar.tracker.ledger }],
      log,
      signal: stop.signal,
    }),
  ];
  const end = async () => {
    stop.abort();
    await Promise.all(streams);
    await sidecar[Symbol.asyncDispose]();
  };
  try {
    await sidecar.records.find((record) => record.msg === 'identity in force');
  } catch (error) {
    await end();
    throw error;
  }
  return {
    get sidecar() {
      return sidecar.sidecar;
    },
    identity: sidecar.identity,
    revocations: sidecar.revocations,
    mesh: sidecar.mesh,
    records: sidecar.records,
    get destination() {
      return sidecar.destination;
    },
    set destination(endpoint) {
      sidecar.destination = endpoint;
    },
    get inboundDestination() {
      return sidecar.inboundDestination;
    },
    set inboundDestination(endpoint) {
      sidecar.inboundDestination = endpoint;
    },
    settled: sidecar.settled,
    [Symbol.asyncDispose]: end,
  };
}
