// An SDS server whose every answer a test decides.

import { type Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { Secret } from '../../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  DiscoveryRequest,
  DiscoveryResponse,
} from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceService } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { newServer } from '../../src/wire/grpc.ts';

export const SECRET_TYPE = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';

export const bytes = (pem: string) => ({ specifier: { $case: 'inlineBytes' as const, value: Buffer.from(pem) } });

export function tlsSecret(pem: { chain?: string; key?: string }): Secret {
  return {
    name: 'default',
    type: {
      $case: 'tlsCertificate',
      value: {
        certificateChain: pem.chain === undefined ? undefined : bytes(pem.chain),
        privateKey: pem.key === undefined ? undefined : bytes(pem.key),
        password: undefined,
      },
    },
  };
}

export function bundleSecret(pem: string): Secret {
  return {
    name: 'ROOTCA',
    type: { $case: 'validationContext', value: { trustedCa: bytes(pem), crl: undefined, customValidatorConfig: undefined } },
  };
}

export class ScriptedSds implements AsyncDisposable {
  readonly requests: DiscoveryRequest[] = [];
  readonly deltaRequests: DeltaDiscoveryRequest[] = [];
  /** Of a server on TCP. */
  port = 0;
  streams = 0;
  readonly #server: Server = newServer();
  readonly #waiting = new Set<() => void>();
  #calls: ServerDuplexStream<DiscoveryRequest, DiscoveryResponse>[] = [];
  #delta: ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse> | undefined;
  readonly #space: string;
  #nonce = 0;

  private constructor(space: string) {
    this.#space = space;
  }

  /** On a unix socket, or with credentials on a free port. Nonces and versions of two servers differ by their `space`. */
  static async start(socket: string, of: { credentials?: ServerCredentials; space?: string } = {}): Promise<ScriptedSds> {
    const sds = new ScriptedSds(of.space ?? '');
    sds.#server.addService(SecretDiscoveryServiceService, {
      streamSecrets: (call: ServerDuplexStream<DiscoveryRequest, DiscoveryResponse>) => {
        sds.#calls.push(call);
        sds.streams++;
        call.on('data', (request: DiscoveryRequest) => {
          sds.requests.push(request);
          for (const wake of [...sds.#waiting]) wake();
        });
        call.on('error', () => undefined);
        call.on('end', () => call.end());
        for (const wake of [...sds.#waiting]) wake();
      },
      deltaSecrets: (call: ServerDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>) => {
        sds.#delta = call;
        sds.streams++;
        call.on('data', (request: DeltaDiscoveryRequest) => {
          sds.deltaRequests.push(request);
          for (const wake of [...sds.#waiting]) wake();
        });
        call.on('error', () => undefined);
        call.on('end', () => call.end());
        for (const wake of [...sds.#waiting]) wake();
      },
    });
    const address = of.credentials === undefined ? `unix:${socket}` : '127.0.0.1:0';
    await new Promise<void>((resolve, reject) => {
      sds.#server.bindAsync(address, of.credentials ?? ServerCredentials.createInsecure(), (error, port) => {
        sds.port = port;
        if (error === null) resolve();
        else reject(error);
      });
    });
    return sds;
  }

  /** Sends one response on the latest stream, or the n-th that is open (from 1), and resolves with the client's answer to it. */
  async push(secrets: readonly Secret[], typeUrl = SECRET_TYPE, nth?: number): Promise<DiscoveryRequest> {
    const call = await this.#until(() => this.#calls.at(nth === undefined ? -1 : nth - 1));
    const nonce = `${this.#space}nonce-${++this.#nonce}`;
    call.write({
      versionInfo: `${this.#space}version-${this.#nonce}`,
      typeUrl: SECRET_TYPE,
      nonce,
      resources: secrets.map((secret) => ({ typeUrl, value: Buffer.from(Secret.encode(secret).finish()) })),
    });
    return this.#until(() => this.requests.find((request) => request.responseNonce === nonce));
  }

  /** The same in delta; the version of a resource is the nonce it came with. */
  async pushDelta(
    secrets: readonly (Secret | { as: string; secret: Secret })[],
    removed: readonly string[] = [],
  ): Promise<DeltaDiscoveryRequest> {
    await this.#until(() => (this.#delta === undefined ? undefined : true));
    const nonce = `${this.#space}nonce-${++this.#nonce}`;
    this.#delta?.write({
      systemVersionInfo: '',
      typeUrl: SECRET_TYPE,
      nonce,
      resources: secrets.map((entry) => {
        const { as, secret } = 'as' in entry ? entry : { as: entry.name, secret: entry };
        const resource = { typeUrl: SECRET_TYPE, value: Buffer.from(Secret.encode(secret).finish()) };
        return { name: as, version: nonce, aliases: [], resource };
      }),
      removedResources: [...removed],
    });
    return this.#until(() => this.deltaRequests.find((request) => request.responseNonce === nonce));
  }

  /** Ends the open streams; the server stays. */
  endStreams(): void {
    for (const call of this.#calls) call.end();
    this.#calls = [];
    this.#delta?.end();
    this.#delta = undefined;
  }

  /** Resolves with the first request of the n-th delta stream. */
  subscribedDelta(nth = 1): Promise<DeltaDiscoveryRequest> {
    return this.#until(() => this.deltaRequests.filter((request) => request.node !== undefined)[nth - 1]);
  }

  /** Resolves once this many streams were opened. */
  async opened(streams: number): Promise<void> {
    await this.#until(() => (this.streams >= streams ? true : undefined));
  }

  /** The first request of the latest stream. */
  subscribed(): Promise<DiscoveryRequest> {
    return this.#until(() => this.requests.find((request) => request.responseNonce === ''));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.forceShutdown();
  }

  #until<T>(check: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the SDS client did not do it within 10 s')), 10_000);
      const look = () => {
        const found = check();
        if (found === undefined) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }
}
