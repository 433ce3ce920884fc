// The CA as a service: an authority and a token prover behind one gRPC socket.

import type { Log } from '../observe/log.ts';
import { listenUnix, newServer, stopServer } from '../wire/grpc.ts';
import { Authority } from './authority.ts';
import { LocalTokenProver, openLocalTokenKey } from './local-token.ts';
import { addCaService } from './server.ts';

export interface CaOptions {
  /** Directory of the CA's keys. */
  readonly stateDir: string;
  readonly socket: string;
  readonly trustDomain: string;
  readonly svidTtlMs: number;
  readonly audience: string;
  readonly log: Log;
  readonly now: () => number;
}

/** Serves until `stop` is called. Only root (or the CA's own user) may open the socket: agents, not workloads. */
export async function startCa(options: CaOptions): Promise<{ stop(): Promise<void> }> {
  const { log, now } = options;
  const authority = await Authority.open({
    dir: options.stateDir,
    trustDomain: options.trustDomain,
    svidTtlMs: options.svidTtlMs,
    log,
    now,
  });
  const prover = new LocalTokenProver({ key: await openLocalTokenKey(options.stateDir), audience: options.audience, now });
  const server = newServer();
  addCaService(server, { authority, prover, log });
  await listenUnix(server, options.socket, 0o600);
  log.info({ socket: options.socket, trustDomain: options.trustDomain, stateDir: options.stateDir }, 'CA listening');
  return { stop: () => stopServer(server) };
}
