// Control as a service: a source of objects, resolved into a cache, served by delta ADS on one gRPC socket.

import { ResourceCache } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import { listenUnix, newServer, stopServer } from '../wire/grpc.ts';
import { startController } from './controller.ts';
import { DirectorySource } from './directory-source.ts';
import { addControlService } from './server.ts';

export interface ControlOptions {
  /** Directory of YAML objects. */
  readonly configDir: string;
  readonly socket: string;
  readonly trustDomain: string;
  readonly log: Log;
}

/** Throws OBJECT_INVALID when the directory cannot be used to begin with. Serves until `stop` is called. */
export async function startControl(options: ControlOptions): Promise<{ stop(): Promise<void> }> {
  const { log } = options;
  const watching = new AbortController();
  const source = new DirectorySource({ dir: options.configDir, log });
  await source.start(watching.signal);
  const cache = new ResourceCache();
  startController({ source, cache, trustDomain: options.trustDomain, log, signal: watching.signal });
  const server = newServer();
  addControlService(server, { cache, log });
  await listenUnix(server, options.socket, 0o600);
  log.info({ socket: options.socket, configDir: options.configDir }, 'control listening');
  return {
    stop: async () => {
      watching.abort();
      await stopServer(server);
    },
  };
}
